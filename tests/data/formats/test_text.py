from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.data import formats
from ingot.data.document import Document, Dropped

SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(
    text=st.text("ab\n|", max_size=60), separator=st.sampled_from(["\n\n", "|", "|\n|"]), part_bytes=st.integers(1, 70)
)
def test_the_parts_of_a_text_tile_it(tmp_path: Path, read_all, pack, text: str, separator: str, part_bytes: int):
    """No character is lost or doubled. Where separators overlap, a cut may choose another one of them."""
    path = tmp_path / "a.txt"
    path.write_text(text)
    records = [record for record in read_all(path, separator=separator, part_bytes=part_bytes, read_bytes=7)]
    letters = "".join(record.text for record in records)
    assert [c for c in letters if c in "ab"] == [c for c in text if c in "ab"]
    if separator == "|":
        assert letters == "".join(piece for piece in text.split("|") if piece.strip())
        for suffix in (".gz", ".zst"):
            packed = pack(tmp_path / f"a.txt{suffix}", text.encode())
            assert read_all(packed, separator=separator, read_bytes=7) == records


@SETTINGS
@given(text=st.text("ab\n", max_size=80), size=st.integers(1, 30), read_bytes=st.integers(1, 40))
def test_a_long_text_is_read_in_pieces_of_whole_lines_packed_or_not(
    tmp_path: Path, read_all, pack, text: str, size: int, read_bytes: int
):
    found = [
        read_all(pack(tmp_path / f"a.txt{suffix}", text.encode()), part_bytes=size, read_bytes=read_bytes)
        for suffix in ("", ".gz", ".zst")
    ]
    assert found[0] == found[1] == found[2]
    begins = [record.offset for record in found[0]]
    assert begins[0] == 0 and len({begin // size for begin in begins}) == len(begins)
    assert all(text[begin - 1] == "\n" for begin in begins[1:])
    pieces = [text[begin:end] for begin, end in zip(begins, [*begins[1:], None], strict=True)]
    wanted = [
        Document(piece, begin) if piece.strip() else Dropped("empty", begin)
        for piece, begin in zip(pieces, begins, strict=True)
    ]
    assert found[0] == wanted


def test_a_text_file_is_one_document_as_it_stands(tmp_path: Path, pack, read_all, packing: str):
    path = pack(tmp_path / f"a.txt{packing}", b"\xef\xbb\xbfone\r\n\r\ntwo\x00 ")
    assert read_all(path) == [Document("one\r\n\r\ntwo\x00 ", 0)]


@pytest.mark.parametrize(
    "content, reason", [(b"", "empty"), (b" \n", "empty"), (b"\xef\xbb\xbf", "empty"), (b"a\xff", "invalid UTF-8")]
)
def test_a_text_file_that_gives_nothing_is_dropped(tmp_path: Path, pack, read_all, packing, content, reason):
    [record] = read_all(pack(tmp_path / f"a.txt{packing}", content))
    assert record.reason == reason


def test_the_place_of_a_document_is_its_line(tmp_path: Path, pack, packing: str):
    path = pack(tmp_path / f"a.txt{packing}", b"one\ntwo\n\nthree\xff\n\nfour")
    [part] = formats.parts(path, separator="\n\n")
    places = [part.place(record.offset) for record in formats.read(part)]
    assert places == [f"{path}:1", f"{path}:4", f"{path}:6"]


def test_many_whole_files_are_read_alike(tmp_path: Path, read_all: Callable, pack):
    """A member behind another, and padding with zeros, are gzip's and zstd's own ways."""
    for suffix in (".gz", ".zst"):
        path = pack(tmp_path / f"a.txt{suffix}", b"one ")
        path.write_bytes(path.read_bytes() + bytes(5) + pack(tmp_path / f"b{suffix}", b"two").read_bytes() + bytes(9))
        assert read_all(path) == read_all(path, read_bytes=3) == [Document("one two", 0)]
