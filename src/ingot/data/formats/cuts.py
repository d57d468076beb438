"""The records that the content of a file is cut into, where separators or line ends stand.

They are cut while the file is read, so memory holds a block and the longest record, whatever the file's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from ingot.data.formats.stream import Damage, content, opened, packing, reach, stretch

SEEK_BYTES = 2**16  # read at once in search of a record's start


def records(path: Path, begin: int, end: int, separator: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of each record that starts in the bytes [begin, end); of a packed file, of every record.

    A record starts at the head of the file and behind each separator, so ranges that tile a file tile its records.
    """
    if packing(path):
        return split(content(path), separator)
    begin, end = _record_start(path, begin, separator), _record_start(path, end, separator)
    return split(stretch(path, begin, end), separator, begin)


def pieces(path: Path, begin: int, end: int, each: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of a text in pieces of whole lines: of the lines that start in the same `each` bytes.

    Of a plain file, one piece: that of the bytes [begin, end). The head of a file is a piece even if it is empty.
    """
    if packing(path):
        yield from _cut(content(path), each)
        return
    begin, end = _record_start(path, begin, b"\n"), _record_start(path, end, b"\n")
    if begin < end or begin == 0:
        yield begin, b"".join(stretch(path, begin, end))


def split(blocks: Iterable[bytes], separator: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of what lies between separators; `offset` is that of the first byte."""
    unfinished: list[bytes] = []  # joined once, when its end is found: the cost of a long record stays linear
    overlap, carry = len(separator) - 1, b""  # a separator may lie across two blocks
    try:
        for block in blocks:
            first, *others = (carry + block).split(separator)
            unfinished.append(first)
            for other in others:
                record, unfinished = b"".join(unfinished), [other]
                yield offset, record
                offset += len(record) + len(separator)
            if overlap:
                last = unfinished.pop()
                kept = max(0, len(last) - overlap)
                unfinished.append(last[:kept])
                carry = last[kept:]
    except Damage as damage:
        raise Damage(damage.reason, offset) from None
    if rest := b"".join([*unfinished, carry]):
        yield offset, rest


def _cut(blocks: Iterable[bytes], each: int) -> Iterator[tuple[int, bytes]]:
    begin = end = 0  # of the piece that is unfinished, as far as it is known
    unfinished: list[bytes] = []
    try:
        for block in blocks:
            while (line := block.find(b"\n", max(0, (begin // each + 1) * each - 1 - end)) + 1) > 0:
                yield begin, b"".join([*unfinished, block[:line]])
                begin = end = end + line
                unfinished, block = [], block[line:]
            unfinished.append(block)
            end += len(block)
    except Damage as damage:
        raise Damage(damage.reason, begin) from None
    if begin < end or begin == 0:
        yield begin, b"".join(unfinished)


def _record_start(path: Path, position: int, separator: bytes) -> int:
    """The first start of a record at or after `position`: 0, behind a separator, or the end of the file."""
    if position == 0:
        return 0
    at = max(0, position - len(separator))
    with opened(path) as file:
        file.seek(at)
        window = b""
        while block := reach(path, partial(file.read, SEEK_BYTES)):
            window += block
            if (found := window.find(separator)) >= 0:
                return at + found + len(separator)
            keep = len(separator) - 1  # a separator may lie across two blocks
            at += len(window) - keep
            window = window[len(window) - keep :]
        return file.tell()
