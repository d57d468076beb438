from __future__ import annotations

import builtins
import re
from itertools import pairwise
from pathlib import Path

import pytest

from ingot.data import formats
from ingot.data.document import Conversation, Document, Dropped
from ingot.data.formats import stream
from ingot.errors import UserError
from ingot.extras import pip_install

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write(path: Path, pack, columns: dict, rows: int = 1000, **options) -> Path:
    plain = path.with_name("plain")
    pq.write_table(pa.table(columns), plain, row_group_size=rows, **options)
    return pack(path, plain.read_bytes())


@pytest.mark.parametrize(
    "type_", ["string", "large_string", "string_view", "binary", "large_binary", "binary_view", "dictionary"]
)
def test_text_is_read_from_whatever_type_holds_it(tmp_path: Path, pack, read_all, packing: str, type_: str):
    texts = ["one\r\n", None, "é\x00", " "]
    column = pa.array(texts).dictionary_encode() if type_ == "dictionary" else pa.array(texts, getattr(pa, type_)())
    path = write(tmp_path / f"a.parquet{packing}", pack, {"id": [1, 2, 3, 4], "text": column})
    assert read_all(path) == [
        Document("one\r\n", 0),
        Dropped("no text in the field 'text'", 1),
        Document("é\x00", 2),
        Dropped("empty", 3),
    ]


@pytest.mark.parametrize("part_bytes", [1, 1500, 10**9])
def test_runs_of_row_groups_tile_the_rows(tmp_path: Path, pack, read_all, monkeypatch, part_bytes: int):
    texts = [f"text {number} " * 9 for number in range(300)]
    path = write(tmp_path / "a.parquet", pack, {"text": texts, "id": list(range(300))}, rows=21, compression="none")
    monkeypatch.setattr(formats, "PART_BYTES", part_bytes)
    parts = formats.parts(path)
    assert parts[0].begin == 0 and parts[-1].end == path.stat().st_size
    assert all(before.end == after.begin for before, after in pairwise(parts))
    assert len(parts) == {1: 15, 1500: 15, 10**9: 1}[part_bytes] or 1 < len(parts) < 15
    assert read_all(path, part_bytes=part_bytes) == [Document(text, row) for row, text in enumerate(texts)]


def test_bytes_that_are_no_text_are_dropped_alone(tmp_path: Path, pack, read_all):
    column = pa.array([b"one", b"\xff", b"two"])
    path = write(tmp_path / "a.parquet", pack, {"text": column})
    assert read_all(path) == [Document("one", 0), Dropped("invalid UTF-8", 1), Document("two", 2)]
    part = formats.parts(path)[0]
    assert part.place(1) == f"{path}, row 2"


@pytest.mark.parametrize("named, said", [
    ("id", "the column 'id' holds int64; columns of text are: title"),
    ("other", "there is no column 'other'; columns of text are: title"),
    ("", r"no text field was found .* the records have: id, title; name the one"),
])  # fmt: skip
def test_a_column_of_the_wrong_type_is_one_line(tmp_path: Path, pack, named: str, said: str):
    path = write(tmp_path / "a.parquet", pack, {"id": [1, 2], "title": ["a", "b"]})
    with pytest.raises(UserError, match=rf"a\.parquet: {said}"):
        formats.parts(path, named)
    assert formats.parts(path, "title")[0].field == "title"


def test_a_column_of_messages_gives_conversations(tmp_path: Path, pack, read_all, packing: str):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    path = write(tmp_path / f"a.parquet{packing}", pack, {"id": [1, 2], "messages": [messages, None]})
    conversation, dropped = read_all(path)
    assert isinstance(conversation, Conversation) and isinstance(dropped, Dropped)
    assert [(message.role, message.content) for message in conversation.messages] == [
        ("user", "hi"),
        ("assistant", "hello"),
    ]


def test_rows_behind_damage_are_counted(tmp_path: Path, pack, read_all):
    texts = [f"text {number} " * 50 for number in range(90)]
    path = write(tmp_path / "a.parquet", pack, {"text": texts}, rows=30, compression="zstd", write_page_checksum=True)
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    content[start + 100] ^= 255
    path.write_bytes(content)
    for part_bytes in (1, 10**9):
        records = read_all(path, part_bytes=part_bytes)
        assert Dropped(stream.BROKEN, 30, records=30) in records
        assert [record.text for record in records if isinstance(record, Document)] == texts[:30] + texts[60:]


@pytest.mark.parametrize("keep, reason", [(0, stream.CUT), (3, stream.CUT), (0.5, stream.CUT), (-5, stream.CUT)])
def test_a_file_without_its_end_is_one_record_dropped(tmp_path: Path, pack, read_all, keep: float, reason: str):
    path = write(tmp_path / "a.parquet", pack, {"text": ["a", "b"]})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert read_all(path) == [Dropped(reason, 0)]
    path.write_bytes(b"no parquet" + b"PAR1")
    assert read_all(path) == [Dropped(stream.BROKEN, 0)]


def test_without_pyarrow_the_line_says_what_to_install(tmp_path: Path, pack, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.parquet", pack, {"text": ["a"]})
    original = builtins.__import__

    def missing(name: str, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=re.escape(f"pyarrow, which is not installed; {pip_install('data')}")):
        formats.parts(path)
