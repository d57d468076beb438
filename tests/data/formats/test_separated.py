from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.data import formats
from ingot.data.document import Document, Dropped

SETTINGS = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
# A carriage return alone ends a row for the module that writes, and for the one that reads.
cells = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r") | st.sampled_from(',;"\n'), max_size=9
)


@SETTINGS
@given(
    rows=st.lists(st.tuples(cells, cells), max_size=8),
    ends=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from(",;\t"),
    read_bytes=st.integers(1, 60),
)
def test_what_was_written_is_read(tmp_path: Path, read_all, pack, rows, ends: str, delimiter: str, read_bytes: int):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator=ends, delimiter=delimiter)
    writer.writerows([("id", "text"), *rows])
    for suffix in ("", ".gz", ".zst"):
        path = pack(tmp_path / f"a.csv{suffix}", buffer.getvalue().encode())
        records = read_all(path, "text", read_bytes=read_bytes)
        texts = [text for _, text in rows]
        assert [record.text if isinstance(record, Document) else "" for record in records] == [
            text if text.strip() else "" for text in texts
        ]
        assert all(record.reason == "empty" for record in records if isinstance(record, Dropped))


@pytest.mark.parametrize(
    "content, wanted",
    [
        (b"", []),
        (b"\n\nid,text\n", []),
        (b"\xef\xbb\xbftext\none\n\ntwo", ["one", "two"]),
        (b'id,text\n1,"cut', [("the file is cut short", 8)]),
        (b'id,text\n1,whole\n2,"cut\nwithin ""quotes""\n', ["whole", ("the file is cut short", 16)]),
        (b"id,text\n1,one, two\n3\n4,four", [("more or fewer fields than the header has", 8)] * 2 + ["four"]),
        (b"id,text\n1,\xff\n2,\x00two\n", [("invalid UTF-8", 8), "\x00two"]),
        (b'id,text\n1,5" of rain\n2,"quoted" and not\n', ['5" of rain', "quoted and not"]),
        (b"id,text\n1,a\rb\n2,two", [("not CSV", 8), "two"]),
    ],
)
def test_every_row_is_read_or_dropped(tmp_path: Path, pack, read_all, packing: str, content: bytes, wanted: list):
    records = read_all(pack(tmp_path / f"a.csv{packing}", content), "text")
    assert [found(record, wanted) for record in records] == wanted


def found(record: Document | Dropped, wanted: list) -> str | tuple[str, int]:
    if isinstance(record, Document):
        return record.text
    place = next((at for at in wanted if isinstance(at, tuple) and at[0] == record.reason), (record.reason, -1))
    return place if record.offset >= place[1] else (record.reason, record.offset)


def test_the_place_of_a_row_is_its_first_line(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,"two\nlines"\n2,\n')
    [part] = formats.parts(path)
    one, two = formats.read(part)
    assert (one.text, part.place(one.offset)) == ("two\nlines", f"{path}:2")
    assert (two.reason, part.place(two.offset)) == ("empty", f"{path}:4")


def test_a_field_that_nothing_closes_has_an_end(tmp_path: Path, read_all, monkeypatch: pytest.MonkeyPatch):
    """It does not grow for ever; what it took in is lost with it, and the rest is read."""
    monkeypatch.setattr("ingot.data.formats.separated.FIELD_CHARACTERS", 1000)
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"open\n' + "x" * 900 + "\n" + "y" * 900 + "\n2,two\n")
    assert read_all(path) == [Dropped("not CSV", 8), Document("two", 16 + 901 + 901)]


def test_a_field_of_megabytes_is_read(tmp_path: Path, read_all):
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"' + "long\n" * 2**18 + '"\n')
    assert [record.text for record in read_all(path)] == ["long\n" * 2**18]
