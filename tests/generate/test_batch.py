"""Continuous batching: each request is as if it were alone, bit for bit, whatever comes, goes, and is guessed."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ARCHITECTURES, END, SHAPE, ByteTokenizer, small_model

from ingot.errors import UserError
from ingot.generate import batch as batches
from ingot.generate.batch import Batch
from ingot.generate.generator import Generator
from ingot.generate.layout import PlainModel, lay_out
from ingot.generate.sampling import Sampling
from ingot.generate.token import Token
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder

REPEATING = [END, *b"one two three one two three one two three one"]
KINDS = [
    Sampling(temperature=0, max_new_tokens=9),
    Sampling(seed=1, max_new_tokens=14, top_p=0.9, logprobs=2),
    Sampling(seed=2, max_new_tokens=20, repetition_penalty=1.3, temperature=0.8),
    Sampling(seed=3, max_new_tokens=12, frequency_penalty=1, presence_penalty=0.5, lookup=5),
    Sampling(seed=4, max_new_tokens=16, top_k=5, min_p=0.1, logit_bias={65: 3}, lookup=3),
    Sampling(temperature=0, max_new_tokens=25, lookup=6),
]
ON_AND_ON = Sampling(max_new_tokens=50, logit_bias={END: -100})  # a text that would not end by chance


def _batch(family: str = "qwen3", slots: int = 3) -> Batch:
    torch.manual_seed(0)
    return Batch(small_model(ARCHITECTURES[family]), ByteTokenizer(), slots=slots)


def _made(tokens: list[Token]) -> list[tuple]:
    return [(one.id, one.reason, one.logprob, one.alternatives) for one in tokens]


def _alone(layout, prompt: list[int], sampling: Sampling) -> list[tuple]:
    batch = Batch(layout, ByteTokenizer(), slots=1)
    batch.add(prompt, sampling)
    return _made(list(batch.run()))


REQUESTS = st.tuples(
    st.lists(st.integers(0, END), min_size=1, max_size=24), st.sampled_from(KINDS), st.integers(0, 6), st.booleans()
)


@settings(max_examples=8)
@given(st.sampled_from(list(ARCHITECTURES)), st.lists(REQUESTS, min_size=1, max_size=6), st.sampled_from([7, 512]))
def test_a_request_is_as_if_it_were_alone(family: str, requests, chunk: int):
    """Whoever joins after how many steps, is cancelled, shares the slot, or has its prompt read in chunks."""
    torch.manual_seed(0)
    layout = lay_out(small_model(ARCHITECTURES[family]))
    batch = Batch(layout, ByteTokenizer(), slots=3)
    waiting, asked, made = list(requests), {}, defaultdict(list)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "CHUNK", chunk)
        steps = 0
        while waiting or batch.free < batch.slots:
            while waiting and batch.free and waiting[0][2] <= steps:
                prompt, sampling, _, leaves = waiting.pop(0)
                asked[batch.add(prompt, sampling)] = (prompt, sampling, leaves)
            for token in batch.step():
                made[token.request].append(token)
                if asked[token.request][2] and len(made[token.request]) == 3:
                    batch.cancel(token.request)
            steps += 1
    for number, (prompt, sampling, leaves) in asked.items():
        alone = _alone(layout, prompt, sampling.model_copy(update={"lookup": 0}))
        count = len(made[number])
        assert _made(made[number]) == alone[:count]
        assert count == len(alone) or (leaves and count >= 3)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0, max_new_tokens=40), Sampling(seed=3, temperature=0.4)])
@pytest.mark.parametrize("plain", [False, True])
def test_guesses_change_nothing_but_the_number_of_steps(sampling: Sampling, plain: bool):
    model = _copying()
    layout = PlainModel(model, "float32") if plain else lay_out(model)
    guessing = Batch(layout, ByteTokenizer(), slots=1)
    guessing.add(REPEATING, sampling.model_copy(update={"lookup": 8}))
    made, steps = [], 0
    while not guessing.free:
        made += guessing.step()
        steps += 1
    expected = _alone(layout, REPEATING, sampling)
    assert [one[:2] for one in _made(made)] == [one[:2] for one in expected]
    assert steps < len(made) / 2


def _copying() -> Decoder:
    """A model whose next token is the same byte plus one, so that its texts repeat themselves."""
    model = Decoder(Architecture(family="llama", **SHAPE | {"context": 200, "hidden_size": 264, "heads": 4})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        following = torch.arange(257).roll(-1)
        following[ord("e")] = ord("a")
        model.embedding.weight[:, :257] = torch.eye(257)
        model.head_weight[following, torch.arange(257)] = 1.0
    return model


def test_slots_are_freed_at_once():
    batch = _batch(slots=2)
    first, second = (batch.add([END], ON_AND_ON) for _ in range(2))
    assert batch.free == 0
    with pytest.raises(RuntimeError, match="no slot is free"):
        batch.add([END], Sampling())
    batch.step()
    batch.cancel(first)
    batch.cancel(first)
    batch.cancel(99)
    assert batch.free == 1
    assert {token.request for token in batch.step()} == {second}
    third = batch.add([END], ON_AND_ON.model_copy(update={"max_new_tokens": 1}))
    assert third not in (first, second)
    assert batch.step()[-1].reason == "length"
    assert batch.free == 1


def test_a_long_prompt_does_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "CHUNK", 10)
    batch = _batch()
    short = batch.add([END], ON_AND_ON)
    batch.step()
    long = batch.add([END] * 35, ON_AND_ON)
    seen = [{token.request for token in batch.step()} for _ in range(4)]
    assert seen == [{short}, {short}, {short}, {short, long}]


def test_an_empty_batch_has_nothing_to_do():
    assert _batch().step() == []


@pytest.mark.parametrize(
    ("prompt", "sampling", "message"),
    [
        ([], Sampling(), "a prompt needs a token"),
        ([1] * 65, Sampling(), "65 tokens, and the model's context is 64"),
        ([1], Sampling(logit_bias={257: 1}), "there is no token 257; the vocabulary has 257"),
    ],
)
def test_what_can_not_be_answered_is_refused(prompt, sampling, message):
    batch = _batch()
    with pytest.raises(UserError, match=message):
        batch.add(prompt, sampling)
    assert batch.free == 3


def test_any_of_the_ends_ends_a_text():
    model = small_model(ARCHITECTURES["llama"])
    prompt = [END, *b"abc"]
    written = [token.id for token in Generator(model, ByteTokenizer()).tokens([prompt], [KINDS[1]])]
    ends = {END, written[2]}
    (made,) = Generator(model, ByteTokenizer(), ends).complete([prompt], [KINDS[1]])
    assert (made.reason, list(made.ids)) == ("end", written[: written.index(written[2])])


def test_stop_strings_end_a_text_wherever_tokens_part_them():
    generator = Generator(small_model(ARCHITECTURES["llama"]), ByteTokenizer())
    sampling = Sampling(seed=5, max_new_tokens=40, logit_bias={byte: -100 for byte in range(128, 257)})
    (whole,) = generator.generate(["ab"], sampling)
    stop = whole.text[7:10]
    (made,) = generator.generate(["ab"], sampling.model_copy(update={"stop": ["never", stop]}))
    place = whole.text.index(stop)
    assert (made.text, made.reason) == (whole.text[:place], "stop")
    assert len(made.ids) == place + 3
    assert "".join(generator.stream("ab", sampling.model_copy(update={"stop": [stop]}))) == made.text


@torch.no_grad()
def test_log_probabilities_are_those_of_the_model():
    model = small_model(ARCHITECTURES["gpt2"])
    ids = [END, *b"The state"]
    sampling = Sampling(seed=1, temperature=1.5, top_k=9, repetition_penalty=1.2, max_new_tokens=10, logprobs=4)
    for token in Generator(model, ByteTokenizer()).tokens([ids], [sampling]):
        expected = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        assert token.logprob == pytest.approx(expected[token.id].item(), abs=2e-5)
        values, likeliest = expected.topk(4)
        assert [one for one, _ in token.alternatives] == likeliest.tolist()
        assert [value for _, value in token.alternatives] == pytest.approx(values.tolist(), abs=2e-5)
        ids = [*ids, token.id]
