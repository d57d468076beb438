"""A conversation: what is kept of it, and the commands that change it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ingot.chat.context import Message, Prompt
from ingot.chat.session import SETTINGS, Session
from ingot.errors import UserError
from ingot.generate.sampling import Sampling


class Parrot:
    """Stands for a model: says what it was told, and by which seed."""

    def __init__(self) -> None:
        self.heard: list[Sequence[Message]] = []

    def prompt(self, messages: Sequence[Message], sampling: Sampling) -> Prompt:
        if "long" in messages[-1].content:
            raise UserError("the last message is too long")
        self.heard.append(messages)
        return Prompt([], max(0, len(messages) - 5))

    def answer(self, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        said = self.heard[-1][-1].content
        yield from [] if said == "nothing" else ["you said ", said, f" {sampling.seed}"]


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def session(parrot: Parrot) -> Session:
    return Session(parrot, Sampling(seed=4))


def contents(session: Session) -> list[str]:
    return [message.content for message in session.messages]


def test_turns_are_kept_and_heard_again(session: Session, parrot: Parrot):
    assert "".join(session.answer("a")) == "you said a 4"
    assert "".join(session.answer("b")) == "you said b 4"
    assert [message.content for message in parrot.heard[-1]] == ["a", "you said a 4", "b"]
    assert [message.role for message in session.messages] == ["user", "assistant"] * 2
    "".join(session.answer("c"))
    assert session.dropped == 0 and list(session.answer("d")) and session.dropped == 2


def test_what_was_said_is_kept_where_the_answer_is_stopped_and_nothing_of_no_answer(session: Session):
    pieces = session.answer("a")
    next(pieces)
    pieces.close()
    assert contents(session) == ["a", "you said "]
    assert list(session.answer("nothing")) == [] and contents(session) == ["a", "you said "]
    with pytest.raises(UserError, match="too long"):
        session.answer("a long one")
    assert contents(session) == ["a", "you said "]


def test_retry_takes_the_place_of_the_last_answer_and_another_seed(session: Session):
    with pytest.raises(UserError, match="there is no answer yet"):
        session.command("retry")
    "".join(session.answer("a"))
    assert "".join(session.command("retry")) == "you said a 5" and "".join(session.command("retry")) == "you said a 6"
    assert contents(session) == ["a", "you said a 6"]
    assert "".join(session.answer("b")) == "you said b 4"


def test_settings_are_shown_set_and_checked(session: Session):
    assert session.command("temperature") == "temperature 1"
    assert session.command("temperature 0.25") == "temperature 0.25" and session.sampling.temperature == 0.25
    assert session.command("max 12") == "max 12" and session.sampling.max_new_tokens == 12
    assert session.command("seed none") == "seed none" and session.sampling.seed is None
    for line, told in (
        ("temperature hot", "/temperature: it must be a number, 0 or above, not 'hot'$"),
        ("top_k 1.5", "/top_k: it must be a whole number, 0 or above, not '1.5'$"),
        ("max [", r"/max: it must be a whole number, 1 or above, not '\['$"),
        (
            "temprature 1",
            r"there is no command /temprature; did you mean '/temperature'\? \(a message may begin with //",
        ),
        ("save", r"a file is needed; such as /save talk.json"),
    ):
        with pytest.raises(UserError, match=told):
            session.command(line)
    assert session.sampling.temperature == 0.25


VALUES = {  # of each setting: some that fit, and some that do not, as near to them as can be
    "temperature": (["0", "9e9"], ["-1e-9"]),
    "top_k": (["0", "1000000"], ["-1", "0.5"]),
    "top_p": (["1e-9", "1"], ["0", "1.000001"]),
    "min_p": (["0", "1"], ["-1e-9", "1.000001"]),
    "repetition_penalty": (["0.01", "100"], ["0.009", "100.1"]),
    "seed": (["0", "none", "1000000"], ["-1", "0.5"]),
    "max": (["1", "1000000"], ["0", "1.5"]),
}


@pytest.mark.parametrize("word", SETTINGS)
def test_what_a_setting_may_be_is_what_is_said_of_it(session: Session, word: str):
    fitting, others = VALUES[word]
    for value in fitting:
        session.command(f"{word} {value}")
    for value in [*others, "hot", "{"]:
        with pytest.raises(UserError, match=f"^/{word}: it must be a .*, not '{re.escape(value)}'$"):
            session.command(f"{word} {value}")


def test_reset_and_system(session: Session, parrot: Parrot):
    session.command("system be brief")
    "".join(session.answer("a"))
    session.command("system be long-winded")
    assert contents(session) == ["be long-winded", "a", "you said a 4"]
    session.command("reset")
    assert contents(session) == ["be long-winded"]
    session.command("system")
    assert session.messages == []
    assert all(word in session.command("help") for word in ("/reset", "/temperature", "/save", "Ctrl-C"))
    session.command("exit")
    assert session.over


def test_a_conversation_is_saved_and_loaded_and_nothing_is_overwritten(
    session: Session, parrot: Parrot, tmp_path: Path
):
    path = tmp_path / "talk.json"
    with pytest.raises(UserError, match="nothing was said yet"):
        session.command(f"save {path}")
    "".join(session.answer("größer 東京"))
    session.command(f"save {path}")
    other = Session(parrot, Sampling())
    assert other.command(f"load {path}") == f"2 messages from {path}" and other.messages == session.messages
    "".join(other.answer("b"))
    other.command(f"save {path}")
    assert len(json.loads(path.read_text())[0]["messages"]) == 4
    with pytest.raises(UserError, match="this file is there already"):
        Session(parrot, Sampling(), "x").command(f"save {path}")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "the file can't be read"),
        (b"\xff", "invalid UTF-8"),
        (b"{", "not valid JSON"),
        (b"{}", "messages: a conversation is a list of messages"),
        (b'[{"role": "robot", "content": ""}, {}]', r"messages\[0\]: the role 'robot'"),
    ],
)
def test_a_file_that_is_no_conversation_is_told_in_one_line(session: Session, tmp_path: Path, content, told: str):
    path = tmp_path / "talk.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        session.command(f"load {path}")
    assert session.messages == []


def test_what_is_saved_is_what_a_model_can_be_tuned_on(session: Session, tmp_path: Path):
    from ingot.data.document import Conversation
    from ingot.data.source import Conversations

    "".join(session.answer("a"))
    session.command(f"save {tmp_path / 'talk.json'}")
    source = Conversations(path=str(tmp_path))
    (found,) = [record for part in source.parts() for record in source.documents(part)]
    assert isinstance(found, Conversation) and [tuple(vars(one).values()) for one in found.messages] == session.messages
