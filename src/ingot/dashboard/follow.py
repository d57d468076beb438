"""A file of JSON lines, read as it grows: only what is new, and anew where it is no longer the same file."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

Record = dict[str, Any]

CHUNK = 2**20  # bytes read at once
REMEMBERED = 256  # bytes before the place reached, by which a file is known again
SAMPLE = 2**12  # bytes looked at in one place of a file that is only sampled
ENDS = 2**14  # bytes of such a file's beginning and end, which are read whole


class Follower:
    """One reader of one file. A file that is not there is empty; half a line at its end waits for its other half."""

    def __init__(self, path: Path):
        self.path = path
        self.unreadable = 0
        """whole lines that hold no record"""
        self._forget()

    def _forget(self) -> None:
        self._at, self._before, self._inode, self._rest = 0, b"", -1, 0

    @property
    def half_a_line(self) -> bool:
        """Whether something stood behind the last whole line: a run is writing it, or a kill cut it off."""
        return self._rest > 0

    def left(self) -> int:
        """Bytes that are there and not read yet, or all where the file has to be read anew."""
        size = _size(self.path)
        return size - self._at if size >= self._at else size

    def changed(self) -> bool:
        """Whether the file is no longer the one that was read so far, only longer: the next read begins anew."""
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_ino != self._inode or about.st_size < self._at:
                    return self._at > 0
                file.seek(self._at - len(self._before))
                return file.read(len(self._before)) != self._before
        except OSError:
            return self._at > 0

    def begin_anew(self) -> None:
        """Forget what was read."""
        self.unreadable = 0
        self._forget()

    def read(self) -> Iterator[list[Record]]:
        """The records of the new whole lines, some at a time."""
        try:
            file = self.path.open("rb")
        except OSError:
            return
        with file:
            self._inode = os.fstat(file.fileno()).st_ino
            file.seek(self._at)
            held = b""
            while data := file.read(CHUNK):
                held += data
                end = held.rfind(b"\n") + 1
                if end:
                    self._at += end
                    self._before = (self._before + held[:end])[-REMEMBERED:]
                    records, bad = parse(held[:end])
                    self.unreadable += bad
                    held = held[end:]
                    yield records
            self._rest = len(held.strip())

    def sample(self, places: int) -> Iterator[list[Record]]:
        """Records of the beginning, of about `places` places in between and of the end, in order; nothing is kept.

        For a file that is not empty.
        """
        try:
            file = self.path.open("rb")
        except OSError:
            return
        with file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:  # reads let go of no lock
            size = len(data)
            yield _inside(data[:ENDS], whole=True)
            stride = max(SAMPLE, (size - 2 * ENDS) // max(1, places))
            found = []
            for place in range(ENDS, size - ENDS - SAMPLE, stride):
                begin = data.find(b"\n", place, place + SAMPLE) + 1
                end = data.find(b"\n", begin, begin + SAMPLE) + 1
                found.append(data[begin:end] if begin else b"")
            yield parse(b"".join(found))[0]
            yield _inside(data[max(ENDS, size - ENDS) :], whole=False)


def parse(lines: bytes) -> tuple[list[Record], int]:
    """The records of some lines, and how many lines hold none."""
    values = [_value(line) for line in lines.split(b"\n") if line.strip()]
    records = [value for value in values if isinstance(value, dict)]
    return records, len(values) - len(records)


def _value(line: bytes) -> Any:
    """What a line of JSON says; None where it says nothing. What orjson refuses, such as NaN, the library may read."""
    try:
        return orjson.loads(line)
    except ValueError:
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            return None


def _inside(data: bytes, *, whole: bool) -> list[Record]:
    """The records of the whole lines in a stretch of a file; `whole`: it begins with one."""
    begin = 0 if whole else data.find(b"\n") + 1
    return parse(data[begin : data.rfind(b"\n") + 1])[0] if begin or whole else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
