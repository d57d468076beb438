from __future__ import annotations

import csv
import io
import json
import re
import tracemalloc
from pathlib import Path

import pytest

from ingot.data import formats
from ingot.data.document import Conversation, Document, Dropped
from ingot.errors import UserError

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.mark.parametrize(
    "records, field",
    [
        ([{"text": "a", "content": "b"}], "text"),
        ([{"id": 1, "content": "b"}], "content"),
        ([{"text": 3, "body": "b"}], "body"),
        ([{"text": " ", "body": "b"}], "body"),
        ([{"text": "a", "output": "b"}, {"output": "b"}], "output"),  # the one that most records have
        (["no object", {"message": "m"}], "message"),
        ([{"messages": TURNS}], "messages"),
        ([{"id": 1, "conversations": [{"from": "human", "value": "hi"}]}], "conversations"),
        ([{"messages": TURNS, "text": "the same as text"}], "text"),
        (["no object"], "text"),
        ([], "text"),
    ],
)
def test_the_text_field_is_found_by_itself(tmp_path: Path, pack, packing: str, records: list, field: str):
    lines = pack(tmp_path / f"a.jsonl{packing}", "\n".join(map(json.dumps, records)).encode())
    tree = pack(tmp_path / f"a.json{packing}", json.dumps(records).encode())
    for path in (lines, tree):
        assert formats.parts(path)[0].field == field


def test_a_field_that_is_named_has_to_be_in_some_record_at_the_head(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"question": "b", "answer": "c"}\n')
    assert [formats.parts(path, named)[0].field for named in ("answer", "question+answer")] == [
        "answer",
        "question+answer",
    ]
    for named in ("txt", "text+answer"):
        with pytest.raises(UserError, match=rf"no record has the field '{re.escape(named)}'; the records have: answer"):
            formats.parts(path, named)
    path.write_text("not JSON")  # reading will say what is wrong
    assert formats.parts(path, "named")[0].field == "named"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
def test_no_text_field_is_an_error_that_names_the_fields(tmp_path: Path, name: str):
    path = tmp_path / name
    columns = {"a.csv": "year,title\n1,a\n", "a.tsv": "year\ttitle\n1\ta\n"}
    path.write_text(columns.get(name, '{"title": "a", "year": 1}\n'))
    said = r": no text field was found \(looked for text, content, .*\); the records have: title, year; name the one"
    with pytest.raises(UserError, match=said):
        formats.parts(path)


def test_a_field_of_messages_gives_conversations_and_one_of_text_documents(tmp_path: Path, read_all):
    path = tmp_path / "a.jsonl"
    records = [{"messages": TURNS}, {"messages": "a plain text"}, {"messages": json.dumps(TURNS)}, {"messages": 3}]
    path.write_text("\n".join(map(json.dumps, records)))
    listed, plain, spelled, wrong = read_all(path, "messages")
    assert isinstance(listed, Conversation)
    assert plain == Document("a plain text", plain.offset)
    assert isinstance(spelled, Conversation) and spelled.messages == listed.messages
    assert isinstance(wrong, Dropped)


def rows(text: str, name: str) -> bytes:
    if name == "a.csv":
        buffer = io.StringIO()
        csv.writer(buffer).writerows([("text", "n"), (text, 1), ("short", 2)])
        return buffer.getvalue().encode()
    records = [{"text": text, "n": 1}, {"text": "short", "n": 2}]
    return ("\n".join(map(json.dumps, records)) if name == "a.jsonl" else json.dumps(records)).encode()


@pytest.mark.parametrize("name, size, copies", [("a.jsonl", 50, 4), ("a.json", 20, 5), ("a.csv", 10, 14)])
def test_a_line_of_50_megabytes_takes_a_few_times_its_size(tmp_path: Path, name: str, size: int, copies: int):
    """The csv module holds four bytes for each letter while it reads a field."""
    (tmp_path / name).write_bytes(rows("long " * (size * 200_000), name))
    tracemalloc.start()
    lengths = [len(record.text) for part in formats.parts(tmp_path / name, "text") for record in formats.read(part)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lengths == [size * 1_000_000, 5]
    assert peak < copies * size * 1_000_000
