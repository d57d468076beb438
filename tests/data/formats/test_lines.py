from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.data import formats
from ingot.data.document import Document, Dropped
from ingot.data.formats.lines import JsonLines
from ingot.data.formats.table import Row
from ingot.errors import UserError

SETTINGS = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@SETTINGS
@given(lines=damaged_lines, part_bytes=st.integers(10, 300))
def test_every_line_is_read_or_dropped_wherever_the_file_is_cut(
    tmp_path: Path, read_all, pack, lines: list[bytes], part_bytes: int
):
    content = b"\n".join(lines)
    path = pack(tmp_path / "a.jsonl", content)
    whole = read_all(path, "text")
    assert read_all(path, "text", part_bytes=part_bytes, read_bytes=7) == whole
    assert len(whole) == len([line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()])
    assert all(record.text.encode().strip() for record in whole if isinstance(record, Document))
    for suffix in (".gz", ".zst"):
        assert read_all(pack(tmp_path / f"a.jsonl{suffix}", content), "text", read_bytes=7) == whole


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
spelled = st.builds(lambda value, plain: json.dumps(value, ensure_ascii=plain), values, st.booleans())
PIECES = ['"', "\\", "\\ud800", "NaN", "1e999", "0", ",", "]", "\t", "-", "\x00"]
edited = st.builds(
    lambda line, at, piece: line[:at] + piece + line[at:], spelled, st.integers(0, 60), st.sampled_from(PIECES)
)


@SETTINGS
@given(line=spelled | edited | st.text(max_size=12))
def test_the_fast_parser_reads_what_pythons_reads_and_as_it_does(tmp_path: Path, line: str):
    line = line.replace("\n", " ")
    (tmp_path / "a.jsonl").write_bytes(b"\n" + line.encode(errors="replace"))
    try:
        wanted = json.loads(line.encode(errors="replace"))
    except (ValueError, RecursionError):
        wanted = None
    found = [row for part in JsonLines.of(tmp_path / "a.jsonl", "", 10**6) for row in part.rows()]
    if not line.strip():
        assert not [row for row in found if isinstance(row, Row)]
    elif wanted is None and isinstance(found[0], Dropped):
        assert found[0].reason == "not JSON"
    else:
        assert alike(found[0].fields, wanted)


def alike(one: object, other: object) -> bool:
    """Equal but for numbers: no text is a number, and integers of more than 64 bits may become floats."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or float(one) == float(other) or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


def test_what_is_dropped_says_why_and_where(tmp_path: Path, pack, packing: str):
    lines = [
        b'{"text": "good"}',
        b"{bad",
        b'{"other": 1}',
        b"",
        b'{"text": "\xff"}',
        b'{"text": "\\udc00"}',
        b'{"text": " "}',
    ]
    path = pack(tmp_path / f"a.jsonl{packing}", b"\n".join(lines))
    [part] = formats.parts(path)
    records = list(formats.read(part))
    found = [(record.reason, part.place(record.offset)) for record in records if isinstance(record, Dropped)]
    assert found == [
        ("not JSON", f"{path}:2"),
        ("no text in the field 'text'", f"{path}:3"),
        ("invalid UTF-8", f"{path}:5"),
        ("half a surrogate pair", f"{path}:6"),
        ("empty", f"{path}:7"),
    ]


def test_a_mark_and_windows_line_ends_are_no_text(tmp_path: Path, pack, read_all, packing: str):
    path = pack(tmp_path / f"a.jsonl{packing}", b'\xef\xbb\xbf{"text": "one"}\r\n\r\n{"text": "two"}\r\n')
    assert [record.text for record in read_all(path)] == ["one", "two"]


def test_a_file_that_is_gone_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.jsonl: this file was listed and is gone now; put it back") as caught:
        list(formats.read(JsonLines(tmp_path / "gone.jsonl", 0, 5)))
    assert "\n" not in str(caught.value)


def test_a_long_record_crosses_many_reads(tmp_path: Path, read_all, texts_of):
    path = tmp_path / "a.jsonl"
    texts = ["x" * 100_000, "y", "é" * 50_000]
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts))
    assert list(texts_of(read_all(path, part_bytes=10_000, read_bytes=7))) == texts
