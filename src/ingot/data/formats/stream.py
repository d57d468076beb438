"""The content of a file, plain or packed, in blocks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Protocol, TypeVar

from isal import igzip_lib

from ingot.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

T = TypeVar("T")

READ_BYTES = 2**17  # of content in a block, at most: what a core's own cache holds is read a third faster
STEP_BYTES = 2**17  # of a packed file, unpacked at once
HEAD_BYTES = 2**18  # of a packed file, which tell how much it expands
CUT, BROKEN = "the file is cut short", "the file is damaged"
UNPACKING_ERRORS = (igzip_lib.IsalError, zstd.ZstdError, EOFError, ValueError)  # for a file that is not whole


class Damage(Exception):
    """A file that can't be read on, with why, and where the record starts that is lost with it."""

    def __init__(self, reason: str, offset: int):
        super().__init__(reason, offset)
        self.reason, self.offset = reason, offset


class _Broken(Exception):
    """A packed file that can't be unpacked on from the step that begins at byte `position`."""

    def __init__(self, position: int):
        super().__init__(position)
        self.position = position


class _Decoder(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _gzip() -> _Decoder:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _zstandard() -> _Decoder:
    # Dumps made with `zstd --long=31` ask for a window of 2 GB; others take what they need.
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 31})


_DECODERS: dict[str, Callable[[], _Decoder]] = {".gz": _gzip, ".zst": _zstandard}  # one row adds a packing
PACKINGS = tuple(_DECODERS)


def packing(path: Path) -> str:
    """How the file is packed, as the end of its name: `.gz`, `.zst`, or nothing."""
    suffix = path.suffix.lower()
    return suffix if suffix in _DECODERS else ""


def reach(path: Path, action: Callable[[], T]) -> T:
    """What `action` does with the file at `path`. Raises UserError, in one line, for a file that can't be read."""
    try:
        return action()
    except FileNotFoundError:
        mend = "put it back, or run the command again without it"
        raise UserError("this file was listed and is gone now", where=str(path), mend=mend) from None
    except OSError as error:
        mend = "mend the file's rights, or leave it out"
        raise UserError(f"this file can't be read ({error.strerror})", where=str(path), mend=mend) from None


def file_size(path: Path) -> int:
    """Size in bytes. Raises UserError where the file can't be reached."""
    return reach(path, lambda: path.stat().st_size)


def content(path: Path) -> Iterator[bytes]:
    """The whole content of a file, unpacked, in blocks. Raises Damage behind the last byte that can be unpacked."""
    return _unpacked(path) if packing(path) else stretch(path, 0, file_size(path))


def expansion_of(head: bytes, kind: str) -> float:
    """How many bytes of content a byte of a packed file holds, as its `head` tells; `kind` is one of `PACKINGS`."""
    size = 0
    with contextlib.suppress(Damage, _Broken):  # the head is cut short, unless it is all
        for block in _unpack([(0, head)], kind):
            size += len(block)
    return size / max(1, len(head)) or 1.0


def stretch(path: Path, begin: int, end: int) -> Iterator[bytes]:
    """The bytes [begin, end) of a file as they lie there, in blocks."""
    with opened(path) as file:
        file.seek(begin)
        left = end - begin
        while left > 0 and (block := reach(path, partial(file.read, min(READ_BYTES, left)))):
            left -= len(block)
            yield block


def opened(path: Path) -> IO[bytes]:
    """The file, open to be read. Raises UserError where it can't be reached."""
    return reach(path, lambda: path.open("rb", buffering=0))


def _unpacked(path: Path) -> Iterator[bytes]:
    """The content of a packed file in blocks, up to the very byte at which it can't be unpacked on."""
    given, careful_from = 0, sys.maxsize
    while True:
        passed = 0
        try:
            for block in _unpack(_steps(path, careful_from), packing(path)):
                fresh = block[max(0, given - passed) :]
                passed += len(block)
                given += len(fresh)
                if fresh:
                    yield fresh
            return
        except _Broken as broken:
            if careful_from < sys.maxsize:
                raise Damage(BROKEN, given) from None
            # A decoder keeps to itself what it unpacked in the step in which it finds the damage. So go there again
            # and take that step byte by byte.
            careful_from = broken.position


def _unpack(steps: Iterable[tuple[int, bytes]], kind: str) -> Iterator[bytes]:
    """Blocks of what is packed, one member after another. Steps are (position, bytes)."""
    decoder: _Decoder | None = None  # None: between members
    given = 0
    for begin, step in steps:
        while step or (decoder and not decoder.needs_input):
            if decoder is None:
                step = step.lstrip(b"\0")  # tapes and some tools pad with it
                if not step:
                    break
                decoder = _DECODERS[kind]()
            try:
                block = decoder.decompress(step, READ_BYTES)
            except UNPACKING_ERRORS:  # type: ignore[misc]  # isal's stub calls its error a value
                raise _Broken(begin) from None
            step = b""
            if decoder.eof:
                step = decoder.unused_data
                decoder = None
            given += len(block)
            yield block
    if decoder:
        raise Damage(CUT, given)


def _steps(path: Path, careful_from: int) -> Iterator[tuple[int, bytes]]:
    """(position, bytes) of a file in steps, in steps of one byte from `careful_from` on."""
    position = 0
    with opened(path) as file:
        while True:
            size = min(STEP_BYTES, careful_from - position) if position < careful_from else 1
            step = reach(path, partial(file.read, size))
            if not step:
                return
            yield position, step
            position += len(step)
