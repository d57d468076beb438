from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.config.check import validate
from ingot.data.build import build
from ingot.data.build.plan import Corpus
from ingot.data.conversations import as_record, recognise
from ingot.data.document import Conversation, Dropped, Message, Record
from ingot.data.source import Conversations, HeldOut, Source
from ingot.errors import UserError
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE

ASKED, ANSWERED = "How far is the Moon?", "Some 384,000 km."
TALK = [Message("user", ASKED), Message("assistant", ANSWERED)]


def says(*messages: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


SHAPES: dict[str, dict[str, Any]] = {
    "messages": says(("user", ASKED), ("assistant", ANSWERED)),
    "conversations": {
        "id": "1",
        "conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": ANSWERED}],
    },
    "conversation": {"conversation": [{"speaker": "Ann", "text": ASKED}, {"speaker": "Ben", "text": ANSWERED}]},
    "dialogue": {"dialogue": [ASKED, ANSWERED]},
    "dialog": {"dialog": [[ASKED, ANSWERED]]},
    "turns": {"turns": json.dumps([{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}])},
    "instruction+input+output": {"instruction": ASKED, "input": "", "output": ANSWERED, "text": "all of it"},
    "instruction+context+response": {"instruction": ASKED, "context": None, "response": ANSWERED},
    "prompt+completion": {"prompt": ASKED, "completion": ANSWERED},
    "prompt+response": {"prompt": ASKED, "response": ANSWERED},
    "question+answer": {"question": ASKED, "answer": ANSWERED},
    "question+response": {"question": ASKED, "response": ANSWERED, "system_prompt": " "},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_recognised_and_read(shape: str):
    assert recognise(SHAPES[shape]) == shape
    assert as_record(SHAPES[shape], 7) == as_record(SHAPES[shape], 7, shape) == Conversation((*TALK,), 7)


@pytest.mark.parametrize(
    "record",
    [{}, {"text": "a"}, {"messages": "hello"}, {"messages": [1, 2]}, {"turns": 4}, {"prompt": ASKED}, {"dialog": "[1"}],
)
def test_a_record_without_a_conversation_is_not_taken_for_one(record: dict[str, Any]):
    assert recognise(record) is None
    assert as_record(record, 3) == Dropped("no conversation in the record", 3)


def test_messages_go_before_a_field_that_only_looks_like_a_request():
    record = says(("user", ASKED), ("assistant", ANSWERED)) | {"prompt": "a topic", "response": "x"}
    assert recognise(record) == "messages"


def test_fields_can_be_named():
    assert as_record({"q": ASKED, "a": ANSWERED}, 0, "q+a") == Conversation((*TALK,), 0)
    assert as_record({"chat": [ASKED, ANSWERED]}, 0, "chat") == Conversation((*TALK,), 0)
    request = as_record({"instruction": "Sum up.", "input": "A long text.", "output": "Long."}, 0)
    assert isinstance(request, Conversation)
    assert request.messages[0] == Message("user", "Sum up.\n\nA long text.")


def test_a_system_message_may_stand_beside_the_shape_but_not_twice():
    beside = as_record({"question": ASKED, "response": ANSWERED, "system_prompt": "Be brief."}, 0)
    assert beside == Conversation((Message("system", "Be brief."), *TALK), 0)
    inside = says(("system", "Be kind."), ("user", ASKED), ("assistant", ANSWERED))
    assert as_record(inside | {"system": "Be brief."}, 0) == Conversation((Message("system", "Be kind."), *TALK), 0)


def test_people_who_chat_take_the_two_roles_and_their_messages_are_joined():
    groups = [[("ann", "Hello"), ("ann", " "), ("ann", "How are you?")], [("ben", "Fine"), ("ben", "and you?")]]
    record = {"messages": [[{"sender": who, "text": text} for who, text in group] for group in groups], "prompt": "x"}
    expected = (Message("user", "Hello\nHow are you?"), Message("assistant", "Fine\nand you?"))
    assert as_record(record, 0) == Conversation(expected, 0)


@pytest.mark.parametrize(
    ("messages", "kept", "cut"),
    [
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "ab", 1),
        ([("user", "a"), ("assistant", "b"), ("system", "s"), ("user", "c")], "ab", 2),
        ([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", " \n")], "ab", 1),
        ([("user", "a"), ("assistant", ""), ("user", "c"), ("assistant", "d")], "a\ncd", 0),
        ([("assistant", "hi"), ("user", "a"), ("assistant", "b")], "hiab", 0),
        ([("developer", "s"), ("human", "a"), ("model", "b")], "sab", 0),
    ],
)
def test_what_no_answer_follows_is_cut_off_and_counted(messages: list[tuple[str, str]], kept: str, cut: int):
    found = as_record(says(*messages), 0)
    assert isinstance(found, Conversation)
    assert "".join(message.content for message in found.messages) == kept
    assert found.messages[-1].role == "assistant"
    assert found.cut == cut


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (says(), "fewer than two turns"),
        (says(("user", "a")), "fewer than two turns"),
        (says(("system", "s"), ("assistant", "b")), "fewer than two turns"),
        (says(("user", "a"), ("assistant", "")), "fewer than two turns"),
        ({"instruction": "a", "output": ""}, "fewer than two turns"),
        (says(("user", "a"), ("assistant", "b"), ("tool", "c")), "a role that is none of system, user and assistant"),
        (says(("Ann", "a"), ("Ben", "b")), "a role that is none of system, user and assistant"),
        ({"turns": [{"speaker": n, "text": n} for n in "abc"]}, "more than two people speak"),
        (says(("user", "a"), ("assistant", None)), "a message that is not text"),
        (says(("user", "a"), ("assistant", 4)), "a message that is not text"),
        (says(("user", [{"type": "image"}]), ("assistant", "b")), "a message that is not text"),
        (says(("user", "a"), ("assistant", "\ud83d")), "half a surrogate pair"),
        ({"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}, "a message of nobody"),
        ({"messages": [{"role": "user", "content": "a"}, 7]}, "a message that is not text"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "a message that calls a tool"),
        ([1], "no conversation in the record"),
    ],
)
def test_why_a_record_gives_no_conversation(record: Any, reason: str):
    assert as_record(record, 5) == Dropped(reason, 5)


def test_parts_of_a_message_that_are_all_text_are_one_text():
    parts = [{"type": "text", "text": "How far "}, {"type": "text", "text": "is the Moon?"}]
    assert as_record(says(("user", parts), ("assistant", ANSWERED)), 0) == Conversation((*TALK,), 0)


names = st.sampled_from(
    ["messages", "role", "from", "content", "value", "text", "sender", "instruction", "output", "system"]
)
leaves = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["user", "assistant", "\ud800"])
)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


@given(
    record=anything
    | st.fixed_dictionaries({"messages": anything})
    | st.fixed_dictionaries({"conversation": st.lists(anything)})
)
def test_anything_is_a_conversation_or_is_dropped(record: Any):
    for shape in ("", "messages", "instruction+output"):
        found = as_record(record, 1, shape)
        if isinstance(found, Conversation):
            roles = [message.role for message in found.messages]
            assert roles[-1] == "assistant" and len({*roles} - {"system"}) == 2
            assert all(one != other for one, other in pairwise(roles))
            assert all(message.content.encode() and not message.content.isspace() for message in found.messages)
        else:
            assert found.reason


# --- the source of the kind `conversations` ---------------------------------------------------------------------------


def read(**given: Any) -> tuple[list[Record], list[str]]:
    """Every record of a source, and the fields that its parts are read by."""
    source = validate(Source, {"kind": "conversations", **given}, where="data.sources")
    parts = source.parts()
    return [record for part in parts for record in source.documents(part)], [part.field for part in parts]


def as_lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def as_csv(path: Path, records: list[Any]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["turns"])
        rows.writerows([json.dumps(record["messages"])] for record in records)


FILES: dict[str, Callable[[Path, list[Any]], object]] = {
    "a.jsonl": lambda path, records: path.write_bytes(as_lines(records)),
    "a.json": lambda path, records: path.write_text(json.dumps(records)),
    "b.json": lambda path, records: path.write_text(
        json.dumps({f"id {n}": record for n, record in enumerate(records)})
    ),
    "a.jsonl.gz": lambda path, records: path.write_bytes(gzip.compress(as_lines(records))),
    "a.csv": as_csv,
}


@pytest.mark.parametrize("name", FILES)
def test_conversations_are_read_from_files_of_every_format(tmp_path: Path, name: str):
    records = [says(("user", f"{number}"), ("assistant", ANSWERED)) for number in range(20)] + [says(("user", "a"))]
    FILES[name](tmp_path / name, records)
    found, fields = read(path=str(tmp_path))
    assert [record.messages[0].content for record in found if isinstance(record, Conversation)] == [
        *map(str, range(20))
    ]
    assert [record.reason for record in found if isinstance(record, Dropped)] == ["fewer than two turns"]
    assert fields == ["turns" if name == "a.csv" else "messages"]


def test_parquet_holds_conversations_too(tmp_path: Path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [says(("user", ASKED), ("assistant", ANSWERED))] * 3
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found, fields = read(path=str(tmp_path / "a.parquet"))
    assert found == [Conversation((*TALK,), row) for row in range(3)]
    assert fields == ["messages"]


def test_a_request_and_its_answer_go_before_the_text_that_local_would_read(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(as_lines([SHAPES["instruction+input+output"]]))
    assert read(path=str(tmp_path)) == ([Conversation((*TALK,), 0)], ["instruction+input+output"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "a.txt"}, "holds no conversations"),
        ({"path": "a.jsonl"}, "no conversations were found.*the records have: body, head"),
        ({"path": "absent"}, "there is no"),
        ({}, "name one of them"),
        ({"path": "a.jsonl", "package": "x"}, "name one of them"),
        ({"package": "no-such-package"}, "not installed"),
        ({"path": "a.jsonl", "separator": "x"}, "separator"),
    ],
)
def test_what_is_wrong_with_a_source_is_one_line(tmp_path: Path, monkeypatch: Any, given: dict[str, str], words: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.jsonl").write_bytes(as_lines([{"head": "a", "body": "b"}]))
    with pytest.raises(UserError, match=words):
        read(**given)


def test_the_conversations_of_a_real_package_are_read():
    pytest.importorskip("chitchat_dataset")
    found, fields = read(package="chitchat-dataset", files="*.json")
    assert fields == ["messages"]
    fates = Counter(record.reason if isinstance(record, Dropped) else "read" for record in found)
    assert fates == {"read": 4017, "fewer than two turns": 3151}  # of 7,168, most of them never answered
    first = found[0]
    assert isinstance(first, Conversation)
    assert first.messages[0] == Message("user", "Hello\nHow are you doing today?")


def test_conversations_that_the_chat_template_refuses_are_dropped_and_counted(tmp_path: Path):
    strict = "{% if messages[0].role != 'user' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    trained = BPE(vocabulary=300).train(iter(["the fox"]))
    tokenizer = Tokenizer(trained.content, trained.settings | {"chat_template": strict})
    records = [says(("assistant", "hi"), ("user", "a"), ("assistant", "b")), SHAPES["messages"]] * 3
    (tmp_path / "a.jsonl").write_bytes(as_lines(records))
    corpus = Corpus((Conversations(path=str(tmp_path / "a.jsonl")),), HeldOut(share=0))
    report = build(corpus, tokenizer, tmp_path / "cache").report
    assert report["dropped"]["the chat template refuses it"]["count"] == 3
    assert report["train"]["documents"] == 3


def test_another_chat_template_is_another_cache_whatever_the_field_is_called(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(as_lines([{"chat": [ASKED, ANSWERED]}]))
    corpus = Corpus((Conversations(path=str(tmp_path / "a.jsonl"), field="chat"),), HeldOut(share=0))
    trained = BPE(vocabulary=300).train(iter(["the fox"]))
    other = Tokenizer(trained.content, trained.settings | {"chat_template": "{{ messages[0].content }}"})
    names = {build(corpus, tokenizer, tmp_path / "cache").fingerprint for tokenizer in (trained, other)}
    assert len(names) == 2
