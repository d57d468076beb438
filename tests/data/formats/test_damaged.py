"""Files that were damaged at random: whatever is in them is read or dropped, and counted by someone else as well."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from isal import isal_zlib

from ingot.data import formats
from ingot.data.document import Document, Dropped
from ingot.data.formats.lines import JsonLines
from ingot.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NASTY = ["\x00", "\ufeff", "\r\n", "\r", "\n\n", '"', '""', ",", "\\", "]", "}", "é", "😀", "\u2028", "\t", "NaN", " "]
NASTY_BYTES = [
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"\x00" * 9,
    b"\r",
    b"\n",
    b'"',
    b"[" * 1500,
    b"}{",
]
SEPARATOR = "\n--\n"


# --- files, and what happens to them ----------------------------------------------------------------------------------


def some_text(rng: random.Random) -> str:
    words = rng.choices(["the", "of", "and", "to", *NASTY], k=rng.choice([0, 1, 5, 40, 400]))
    return rng.choice(["", " "]).join(words)


def plain_text(texts: list[str], rng: random.Random) -> bytes:
    return "".join(texts).encode()


def separated_text(texts: list[str], rng: random.Random) -> bytes:
    return SEPARATOR.join(texts).encode()


def lines(texts: list[str], rng: random.Random) -> bytes:
    end = rng.choice(["\n", "\r\n", "\n\n"])
    return end.join(json.dumps({"id": 7, "text": text}, ensure_ascii=rng.random() < 0.5) for text in texts).encode()


def tree(texts: list[str], rng: random.Random) -> bytes:
    records = [{"text": text, "n": [1.5]} for text in texts]
    value = records if rng.random() < 0.5 else {str(n): record for n, record in enumerate(records)}
    return json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])).encode()


def rows(texts: list[str], rng: random.Random) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=rng.choice(["\n", "\r\n"])).writerows([("id", "text"), *enumerate(texts)])
    return buffer.getvalue().encode()


def columns(texts: list[str], rng: random.Random) -> bytes:
    wrong = rng.random() < 0.1
    table = pa.table({"id": list(range(len(texts))), "text": list(range(len(texts))) if wrong else texts})
    buffer = io.BytesIO()
    options = {"compression": rng.choice(["none", "zstd", "snappy", "gzip"]), "use_dictionary": rng.random() < 0.5}
    pq.write_table(
        table, buffer, row_group_size=rng.choice([3, 1000]), write_page_checksum=rng.random() < 0.5, **options
    )
    return buffer.getvalue()


def damage(content: bytes, rng: random.Random) -> bytes:
    """Cut it short, flip a bit, put something in, take something out, or repeat a piece of it."""
    at, to = sorted(rng.choices(range(len(content) + 1), k=2))
    match rng.choice(["cut", "flip", "put", "take", "repeat", "zeros"]):
        case "cut":
            return content[:at]
        case "flip" if at < len(content):
            return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        case "put":
            return content[:at] + rng.choice(NASTY_BYTES) + content[at:]
        case "take":
            return content[:at] + content[to:]
        case "repeat":
            return content[:to] + content[at:]
        case _:
            return content[:at] + bytes(min(to - at, 600)) + content[to:]


FORMATS: dict[str, Callable[[list[str], random.Random], bytes]] = {
    ".txt": plain_text, "+.txt": separated_text, ".jsonl": lines, ".json": tree, ".csv": rows, ".parquet": columns,
}  # fmt: skip
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": lambda content: gzip.compress(content, 6), ".zst": lambda content: zstd.compress(content),
}  # fmt: skip


# --- the other count --------------------------------------------------------------------------------------------------


def unpacked(content: bytes, packing: str) -> tuple[bytes, bool]:
    """What a decoder that is fed byte by byte gives, and whether that is all."""
    out, decoder = b"", None
    for at in range(len(content)) if packing else ():
        byte = content[at : at + 1]
        if decoder is None and byte == b"\0":
            continue
        decoder = decoder or (isal_zlib.decompressobj(31) if packing == ".gz" else zstd.ZstdDecompressor())
        try:
            out += decoder.decompress(byte)
        except (zlib.error, isal_zlib.error, zstd.ZstdError, EOFError, ValueError):
            return out, False
        decoder = None if decoder.eof else decoder
    return (out, decoder is None) if packing else (content, True)


def pieces_found(content: bytes, whole: bool, separator: bytes) -> int:
    *ended, last = content.split(separator)
    return sum(1 for piece in ended if piece.strip()) + (1 if not whole or last.strip() else 0)


def lines_found(content: bytes, whole: bool) -> int:
    return pieces_found(content.removeprefix(b"\xef\xbb\xbf"), whole, b"\n")


def values_found(content: bytes, whole: bool) -> int:
    """Values of one list or mapping, and one for what is behind the first mistake in it."""
    text = content.decode(errors="surrogateescape")
    space = re.compile("[ \t\n\r\ufeff]*")
    skip = lambda at: space.match(text, at).end()  # noqa: E731
    decoder, count, at = json.JSONDecoder(), 0, skip(0)
    if at == len(text):
        return 0 if whole else 1
    if text[at] not in "[{":
        return 1
    closing, keyed, at = {"[": "]", "{": "}"}[text[at]], text[at] == "{", skip(at + 1)
    try:
        while text[at] != closing:
            if keyed:
                at = skip(decoder.raw_decode(text, at)[1])
                if text[at] != ":":
                    return count + 1
                at = skip(at + 1)
            at = skip(decoder.raw_decode(text, at)[1])
            count += 1
            if at < len(text) and text[at] not in (",", closing):
                return count + 1
            at = skip(at + 1) if text[at] == "," else at
    except (ValueError, RecursionError, IndexError):
        return count + 1
    return count + (skip(at + 1) < len(text) or not whole)


def rows_found(content: bytes, whole: bool) -> int:
    """Rows below the header: quotes count where a field starts, and only there."""
    count, header, state, blank, bad = 0, False, "start", True, False
    text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    delimiter = max(",;\t", key=text.split("\n")[0].count)
    if text and not text.endswith("\n") and whole:
        text += "\n"
    for letter in text:
        if bad and letter != "\n":
            continue
        if state == "quoted":
            state = "closed" if letter == '"' else "quoted"
        elif letter == "\n":
            if bad and not header:
                return 1
            if not blank or bad:
                count, header = count + header, True
            state, blank, bad = "start", True, False
        elif letter == "\r":
            state = "returned"
        elif state == "returned":
            bad = True
        elif letter == '"' and state in ("start", "closed"):
            state, blank = "quoted", False
        else:
            state, blank = "start" if letter == delimiter else "within", False
    unfinished = state == "quoted" or (text and text[-1] != "\n")
    return count + (1 if unfinished or not whole else 0)


def table_rows_found(path: Path, content: bytes) -> int:
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        file.schema_arrow.names  # noqa: B018
    except (pa.ArrowException, OSError, ValueError):
        return 1
    return sum(max(0, file.metadata.row_group(group).num_rows) for group in range(file.metadata.num_row_groups))


def other_count(path: Path, form: str, packing: str, parts: list[formats.FilePart]) -> int:
    content, whole = unpacked(path.read_bytes(), packing)
    if form == ".parquet":
        return table_rows_found(path, content) if whole else 1
    if form == ".txt":
        return 1
    if form == "+.txt":
        return pieces_found(content, whole, SEPARATOR.encode())
    if form == ".csv":
        return rows_found(content, whole)
    return (lines_found if isinstance(parts[0], JsonLines) else values_found)(content, whole)


# --- the campaign -----------------------------------------------------------------------------------------------------


def campaign(folder: Path, seeds: range) -> Counter[str]:
    """Reads a damaged file for each seed; how often each thing was found. Raises AssertionError with the seed."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        form, packing = rng.choice(list(FORMATS)), rng.choice(list(PACK))
        content = FORMATS[form]([some_text(rng) for _ in range(rng.choice([0, 1, 2, 9]))], rng)
        for _ in range(rng.choice([0, 1, 1, 2])):
            content = damage(content, rng)
        content = PACK[packing](content)
        for _ in range(rng.choice([0, 1, 1, 2]) if packing else 0):
            content = damage(content, rng)
        path = folder / f"{seed}{form}{packing}"
        path.write_bytes(content)
        try:
            parts = formats.parts(path, rng.choice(["text", "text", ""]), SEPARATOR if form == "+.txt" else "")
            records = [record for part in parts for record in formats.read(part)]
        except UserError as error:
            assert "\n" not in str(error) and form not in (".txt", "+.txt"), seed
            seen["refused"] += 1
        else:
            found = sum(record.records if isinstance(record, Dropped) else 1 for record in records)
            assert found == other_count(path, form, packing, parts), f"seed {seed}: {path.name}"
            seen.update(record.reason if isinstance(record, Dropped) else "documents" for record in records)
            assert all(record.text.encode().strip() for record in records if isinstance(record, Document)), seed
        path.unlink()
    return seen


def test_damaged_files_are_accounted_for(tmp_path: Path):
    seen = campaign(tmp_path, range(400))
    assert {"documents", "refused", "the file is cut short", "the file is damaged", "not JSON", "empty"} <= set(seen)


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_accounted_for(tmp_path: Path):
    seen = campaign(tmp_path, range(400, 10_400))
    print(dict(seen.most_common()))
    assert seen["documents"] > 5_000
