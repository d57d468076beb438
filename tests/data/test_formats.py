from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data import formats
from ingot.data.document import Document, Dropped
from ingot.data.formats import FilePart, JsonLines, PlainText, place
from ingot.errors import UserError

DAMAGED = [
    b'{"text": "good"}',
    b'{"text": ""}',
    b'{"text": 3}',
    b'{"te',
    b"[]",
    b"",
    b"  ",
    b"\r",
    b'{"text": "\\ud800"}',
    b'\xef\xbb\xbf{"text": "behind a mark"}',
    b'{"text": "\x00"}',
    b"[" * 1200,  # deeper than the parser goes
    b'{"text": "\xe9"}',
]
damaged_lines = st.lists(st.binary(max_size=30) | st.sampled_from(DAMAGED), max_size=12)


def read_all(format_: formats.Format, path: Path, part_bytes: int, separator: str = "") -> list[Document | Dropped]:
    with mock.patch.object(formats, "PART_BYTES", part_bytes), mock.patch.object(formats, "READ_BYTES", 7):
        parts = format_.parts(path, "text", separator)
        assert parts[0].begin == 0 and parts[-1].end == path.stat().st_size
        assert all(before.end == after.begin for before, after in pairwise(parts))
        return [record for part in parts for record in format_.read(part)]


@settings(max_examples=150, deadline=None)
@given(lines=damaged_lines, part_bytes=st.integers(10, 300))
def test_every_line_is_read_or_dropped_wherever_the_file_is_cut(tmp_path_factory, lines: list[bytes], part_bytes: int):
    path = tmp_path_factory.mktemp("f") / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    whole = read_all(JsonLines(), path, 10**9)
    assert read_all(JsonLines(), path, part_bytes) == whole
    assert len(whole) == len([line for line in path.read_bytes().split(b"\n") if line.strip()])
    for record in whole:
        if isinstance(record, Document):
            assert record.text.encode().strip()


@settings(max_examples=200, deadline=None)
@given(
    text=st.text("ab\n|", max_size=60), separator=st.sampled_from(["\n\n", "|", "|\n|"]), part_bytes=st.integers(1, 70)
)
def test_the_parts_of_a_text_tile_it(tmp_path_factory, text: str, separator: str, part_bytes: int):
    """No character is lost or doubled. Where separators overlap, a cut may choose another one of them."""
    path = tmp_path_factory.mktemp("f") / "a.txt"
    path.write_text(text)
    letters = "".join(record.text for record in read_all(PlainText(), path, part_bytes, separator))
    assert [c for c in letters if c in "ab"] == [c for c in text if c in "ab"]
    if separator == "|":
        assert letters == "".join(piece for piece in text.split("|") if piece.strip())


def test_a_text_file_is_one_document_as_it_stands(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\x00 ")
    [part] = PlainText().parts(path, "", "")
    assert list(PlainText().read(part)) == [Document("one\r\n\r\ntwo\x00 ", 0)]


def test_what_is_dropped_says_why_and_where(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"text": "good"}',
        b"{bad",
        b'{"other": 1}',
        b"",
        b'{"text": "\xff"}',
        b'{"text": "\\udc00"}',
        b'{"text": " "}',
    ]
    path.write_bytes(b"\n".join(lines))
    [part] = JsonLines().parts(path, "", "")
    records = list(JsonLines().read(part))
    found = [(r.reason, place(path, r.offset)) for r in records if isinstance(r, Dropped)]
    assert found == [
        ("not JSON", f"{path}:2"),
        ("no text in the field 'text'", f"{path}:3"),
        ("invalid UTF-8", f"{path}:5"),
        ("half a surrogate pair", f"{path}:6"),
        ("empty", f"{path}:7"),
    ]


@pytest.mark.parametrize(
    "records, field",
    [
        ([{"text": "a", "content": "b"}], "text"),
        ([{"id": 1, "content": "b"}], "content"),
        ([{"text": 3, "body": "b"}], "body"),
        ([{"text": "a", "output": "b"}, {"output": "b"}], "output"),  # the one that most records have
        (["no object", {"message": "m"}], "message"),
    ],
)
def test_the_text_field_is_found_by_itself(tmp_path: Path, records: list, field: str):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    assert JsonLines().parts(path, "", "")[0].field == field
    assert JsonLines().parts(path, "named", "")[0].field == "named"


def test_no_text_field_is_an_error_that_names_the_fields(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"title": "a", "year": 1}\n')
    with pytest.raises(
        UserError, match=r"a\.jsonl: no text field was found .* the records have: title, year; name the"
    ):
        JsonLines().parts(path, "", "")


def test_a_file_that_is_gone_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.txt: this file was listed and is gone now; put it back") as caught:
        list(formats.read(FilePart(tmp_path / "gone.txt", 0, 5)))
    assert "\n" not in str(caught.value)


def test_a_long_record_crosses_many_reads(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    texts = ["x" * 100_000, "y", "é" * 50_000]
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts))
    assert [record.text for record in read_all(JsonLines(), path, 10_000)] == texts
