"""The generator: equal to transformers, each row as if alone, whole characters, and every way to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from small_models import ARCHITECTURES, END, SHAPE, ByteTokenizer, small_model

from ingot.errors import UserError
from ingot.generate.generator import Generator
from ingot.generate.sampling import Sampling
from ingot.generate.token import Generation, Token
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import save_model

PROMPTS = ["", "a", "The state", "of the Union is", "x" * 30, "é€😀", "\n", "1, 2, 3"]
GREEDY = Sampling(temperature=0, max_new_tokens=12)


def _generator(arch: Architecture) -> Generator:
    return Generator(small_model(arch), ByteTokenizer())


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES)
def generator(request) -> Generator:
    return _generator(request.param)


def _same(left: Sequence[Generation], right: Sequence[Generation]) -> bool:
    """Whether the texts are the same, whatever numbers their requests had."""
    return [replace(one, tokens=()) for one in left] == [replace(one, tokens=()) for one in right]


def _ids(generator: Generator, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in prompts]
    for token in generator.tokens(prompts, [sampling] * len(prompts)):
        rows[token.request].append(token.id)
    return rows


def test_greedy_ids_equal_transformers(generator, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_model(generator.model, tmp_path, end=END)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts = [[END, *prompt.encode()] for prompt in PROMPTS]
    for sampling in (GREEDY, Sampling(temperature=0, max_new_tokens=12, repetition_penalty=1.2)):
        for prompt, ours in zip(prompts, _ids(generator, prompts, sampling), strict=True):
            expected = theirs.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                do_sample=False,
                max_new_tokens=12,
                repetition_penalty=sampling.repetition_penalty,
            )
            assert ours == expected[0, len(prompt) :].tolist()


@torch.no_grad()
def test_greedy_ids_equal_those_without_a_cache(generator):
    ids = [END, *b"The state of"]
    (ours,) = _ids(generator, [ids], GREEDY)
    for chosen in ours:
        assert chosen == generator.model(torch.tensor([ids]))[0, -1].argmax()
        ids = [*ids, chosen]


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 0.9, "top_k": 40, "top_p": 0.95}])
def test_a_ragged_batch_equals_each_prompt_alone(generator, settings):
    samplings = [Sampling(seed=row, max_new_tokens=3 + 2 * row, **settings) for row in range(len(PROMPTS))]
    together = generator.generate(PROMPTS, samplings)
    for prompt, sampling, made in zip(PROMPTS, samplings, together, strict=True):
        assert _same(generator.generate([prompt], sampling), [made])


def test_the_same_seed_gives_the_same_text():
    generator = _generator(ARCHITECTURES["qwen3"])
    sampling = Sampling(seed=3, max_new_tokens=20)
    first, second = generator.generate(["a", "a"], sampling)
    assert first.ids == second.ids
    other = Sampling(seed=4, max_new_tokens=20)
    assert generator.generate(["a"], other)[0].ids != first.ids


def test_without_a_seed_each_text_is_another():
    first, second = _generator(ARCHITECTURES["qwen3"]).generate(["a", "a"])
    assert first.ids != second.ids


def test_a_stream_is_the_same_text(generator):
    for prompt, seed in (("a", 1), ("The", 2), ("", 3)):
        sampling = Sampling(seed=seed, max_new_tokens=25, temperature=1.2)
        assert "".join(generator.stream(prompt, sampling)) == generator.generate([prompt], sampling)[0].text


class Scripted(Generator):
    """Says what it is told to."""

    def tokens(self, prompts, samplings):
        for place, byte in enumerate(self.script):
            yield Token(0, byte, "length" if place == len(self.script) - 1 else None)


def test_a_stream_holds_a_character_back_until_it_is_whole():
    generator = Scripted(Decoder(ARCHITECTURES["llama"]), ByteTokenizer())
    generator.script = "aé€😀".encode()
    assert list(generator.stream("")) == ["a", "é", "€", "😀"]
    generator.script = "a😀".encode()[:-1]  # it ends within a character
    assert list(generator.stream("")) == ["a", "�"]
    assert generator.generate([""])[0].text == "a�"
    generator.script = b"\xff\xc3a"  # bytes that begin no character, or do not go on
    assert "".join(generator.stream("")) == generator.generate([""])[0].text == "��a"


def _always(token: int) -> Generator:
    """A model whose likeliest token is always the same: a final bias that points at its embedding."""
    generator = _generator(ARCHITECTURES["gpt2"])
    with torch.no_grad():
        generator.model.norm.weight.zero_()
        generator.model.norm.bias.copy_(100 * generator.model.head_weight[token])
    return generator


def test_the_end_token_ends_a_text_and_is_no_part_of_it():
    (made,) = _always(END).generate(["a"], GREEDY)
    assert (made.text, made.ids, made.reason) == ("", (), "end")
    assert list(_always(END).stream("a", GREEDY)) == []


def test_the_length_ends_a_text():
    (made,) = _always(65).generate(["a"], GREEDY)
    assert (made.text, made.reason) == ("A" * 12, "length")


@pytest.mark.parametrize(("prompt", "new"), [("a" * 53, 11), ("a" * 62, 2), ("a" * 63, 1)])
def test_the_context_ends_a_text(prompt, new):
    (made,) = _always(65).generate([prompt], Sampling(temperature=0, max_new_tokens=1000))
    assert (made.text, made.reason) == ("A" * new, "context")


def test_a_prompt_longer_than_the_context_is_refused():
    with pytest.raises(UserError, match="65 tokens, and the model's context is 64"):
        _always(65).generate(["a", "a" * 64], GREEDY)


def test_a_rows_end_does_not_touch_the_others():
    generator = _always(65)
    samplings = [Sampling(temperature=0, max_new_tokens=count) for count in (1, 1000, 3)]
    made = generator.generate(["a" * 60, "b", "c"], samplings)
    assert [(len(one.ids), one.reason) for one in made] == [(1, "length"), (63, "context"), (3, "length")]


def test_a_tokenizer_that_the_model_does_not_know_is_refused():
    with pytest.raises(UserError, match="257 tokens and the model 256"):
        Generator(Decoder(Architecture(**SHAPE | {"vocabulary": 256})), ByteTokenizer())


def test_ids_that_the_tokenizer_lacks_are_never_drawn():
    generator = _generator(Architecture(**SHAPE | {"vocabulary": 5000}))
    assert all(max(row) <= END for row in _ids(generator, [[END]] * 4, Sampling(max_new_tokens=20)))


def test_nothing_asked_nothing_made():
    assert _generator(ARCHITECTURES["llama"]).generate([]) == []


def test_a_model_in_training_goes_on_training_and_dropout_stays_out_of_the_text():
    generator = Generator(Decoder(Architecture(family="gpt2", dropout=0.5, **SHAPE)).train(), ByteTokenizer())
    assert generator.generate(["a"], GREEDY) == generator.generate(["a"], GREEDY)
    assert generator.model.training
    stream = generator.stream("a", GREEDY)
    next(stream)
    stream.close()
    assert generator.model.training
    generator.model(torch.tensor([[1, 2]])).sum().backward()


@pytest.mark.parametrize(
    ("prompt", "text", "reason", "excerpt"),
    [
        ("We must", " stand toge", "length", "We must stand …"),
        ("We must", " stand together.", "length", "We must stand together. …"),
        ("We must", " stand together ", "length", "We must stand together …"),
        ("We must", " stand\n\ntogether", "end", "We must stand together"),
        ("We", "", "end", "We"),
        ("", "hel", "length", "hel …"),
        ("", "", "end", ""),
        ("我们", "必须" * 30, "context", "我们" + "必须" * 30 + " …"),
        ("caf", "\ufffd", "length", "caf …"),
    ],
)
def test_an_excerpt_is_one_line_of_whole_words(prompt, text, reason, excerpt):
    assert Generation(prompt, text, (), reason).excerpt == excerpt
