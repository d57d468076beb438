"""A model as a user has it in Python: it writes, talks and works off lists, and says in one line what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot
from ingot.chat.context import Message, as_messages, prompt_of
from ingot.errors import UserError
from ingot.generate.sampling import Sampling
from ingot.language_model import LanguageModel, load, newest

SEEDED = {"seed": 3, "max_new_tokens": 12}


def test_what_is_streamed_is_what_is_generated(llm: LanguageModel):
    options = {"max_new_tokens": 50, "temperature": 0.7, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.1}
    text = llm.generate("The quick", **options, seed=1)
    assert text and text == "".join(llm.stream("The quick", **options, seed=1))
    assert text != llm.generate("The quick", **options, seed=2)
    assert llm.generate("The quick", **options, seed=1) == text


def test_the_newest_model_is_the_one_made_last_whatever_it_is_called(runs: Path, tmp_path: Path):
    assert newest(runs) == "tiny@7"
    assert ingot.generate_text("The", runs=runs, **SEEDED) == ingot.load("tiny", runs=runs).generate("The", **SEEDED)
    with pytest.raises(UserError, match=r"no run in '.*' has a checkpoint; train one first, such as `ingot demo`"):
        ingot.generate_text("The", runs=tmp_path)


def test_a_model_has_a_name_that_says_which_it_is(runs: Path, llm: LanguageModel):
    assert llm.name == "tiny" and llm.folder == runs / "tiny" / "checkpoints" / "step-000007" / "model"
    assert load(llm.folder).name == load(runs / "tiny").name == "tiny@7"
    assert load("tiny@7", runs=runs).name == "tiny@7"


def test_it_knows_whether_it_was_tuned_and_what_ends_its_answers(runs: Path, llm: LanguageModel):
    assert llm.tuned and llm.ends == set(llm.template.stops) and len(llm.ends) == 2
    plain = load("plain", runs=runs)
    assert not plain.tuned and plain.chat([{"role": "user", "content": "fox?"}], **SEEDED)


def test_an_answer_is_what_follows_the_conversation_in_the_template(llm: LanguageModel):
    messages = [{"role": "system", "content": "lazy"}, {"role": "user", "content": "The fox?"}]
    ids = llm.template.prompt(as_messages(messages))
    (made,) = llm.generator.complete([ids], [Sampling(temperature=0.7, top_p=0.95, **SEEDED)])
    assert llm.chat(messages, **SEEDED) == made.text == "".join(llm.stream_chat(messages, **SEEDED))


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "messages: a conversation without messages"),
        ("Hello", "messages: a conversation is a list of messages"),
        ([{"role": "usr", "content": "?"}], r"messages\[0\]: the role 'usr'; did you mean 'user'"),
        ([{"role": "user"}], r"messages\[0\]: a message needs a text as its content"),
        ([{"role": "user", "content": ["?"]}], r"messages\[0\]: a message needs a text as its content"),
        ([{"role": "user", "content": "?", "nam": "x"}], "there is no key 'nam'"),
        (["Hello"], r"messages\[0\]: a message is a mapping of role and content"),
        ([{"role": "user", "content": "\ud800"}], "half a surrogate pair"),
        (
            [{"role": "user", "content": "fox " * 200}],
            r"the last message has \d+ tokens, and the model's context is 96",
        ),
    ],
)
def test_messages_that_are_none_are_told_in_one_line(llm: LanguageModel, messages, told: str):
    with pytest.raises(UserError, match=told) as raised:
        llm.chat(messages)
    assert "\n" not in str(raised.value)


def test_a_prompt_or_an_option_that_does_not_fit_is_told_in_one_line(llm: LanguageModel):
    with pytest.raises(UserError, match=r"the prompt has \d+ tokens, and the model's context is 96"):
        llm.generate("fox " * 200)
    with pytest.raises(UserError, match="there is no key 'temprature'; did you mean 'temperature'"):
        llm.generate("fox", temprature=1)
    with pytest.raises(UserError, match="sampling: temperature: input should be greater"):
        llm.generate("fox", temperature=-1)


TALK = st.lists(st.text("ab ", min_size=1, max_size=40), min_size=1, max_size=9)


@settings(max_examples=60)
@given(TALK, st.booleans(), st.integers(1, 200))
def test_the_oldest_turns_go_first_and_no_more_than_must(llm: LanguageModel, said, with_system: bool, tokens: int):
    turns = [Message(("user", "assistant")[place % 2], text) for place, text in enumerate(said[: len(said) | 1])]
    turns = turns if len(turns) % 2 else turns[:-1]
    system = [Message("system", "lazy")] if with_system else []
    sampling, context = Sampling(max_new_tokens=tokens), 96
    ids, dropped = prompt_of(llm.template, [*system, *turns], context, sampling)
    assert ids == llm.template.prompt([*system, *turns[dropped:]])  # what is kept is the end, from a question on
    assert dropped % 2 == 0 and len(ids) <= context
    room = min(tokens, context // 4)
    if dropped:
        assert len(llm.template.prompt([*system, *turns[dropped - 2 :]])) + room > context
    if len(turns) - dropped > 1:
        assert len(ids) + room <= context


def test_a_broken_template_hurts_talking_alone(runs: Path, tmp_path: Path):
    source = load("tiny", runs=runs).folder
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": "{% if %}"}))
    broken = load(tmp_path)
    assert broken.generate("The", **SEEDED) and not broken.tuned
    with pytest.raises(UserError, match="chat template: the chat template is not valid Jinja"):
        broken.chat([{"role": "user", "content": "fox?"}])


def test_a_list_of_prompts_gives_what_each_gives_alone(llm: LanguageModel, tmp_path: Path):
    prompts = ["The", {"prompt": "fox", "temperature": 0}, {"messages": [{"role": "user", "content": "dog?"}]}, ""]
    made = llm.batch_generate(prompts, **SEEDED)
    assert [one.prompt for one in made] == ["The", "fox", "dog?", ""]
    assert made[0].text == llm.generate("The", **SEEDED)
    assert made[1].text == llm.generate("fox", **SEEDED | {"temperature": 0})
    output = tmp_path / "results.json"
    assert [one.text for one in llm.batch_generate(prompts, output, **SEEDED)] == [one.text for one in made]
    assert [row["text"] for row in json.loads(output.read_text())] == [one.text for one in made]
    with pytest.raises(UserError, match=r"prompts\[1\]: there is no key 'promt'; did you mean 'prompt'"):
        llm.batch_generate(["The", {"promt": "fox"}])
    with pytest.raises(UserError, match=r"prompts\[1\]: the prompt has \d+ tokens"):
        llm.batch_generate(["The", "fox " * 200])
