from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingot.data import formats
from ingot.data.document import Document, Record
from ingot.data.formats import cuts, stream, text

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}


@pytest.fixture(params=PACK)
def packing(request: pytest.FixtureRequest) -> str:
    """Each way in which a file can be packed, as the end of its name."""
    return request.param


@pytest.fixture
def pack() -> Callable[[Path, bytes], Path]:
    """Writes a file, packed as its name says."""

    def write(path: Path, content: bytes) -> Path:
        path.write_bytes(PACK[stream.packing(path)](content))
        return path

    return write


@pytest.fixture
def read_all() -> Callable[..., list[Record]]:
    """Every record of a file that is cut into parts of `part_bytes` and read `read_bytes` at a time."""

    def read(
        path: Path, field: str = "", separator: str = "", *, part_bytes: int = 4 * 2**20, read_bytes: int = 2**20
    ) -> list[Record]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(formats, "PART_BYTES", part_bytes)
            patch.setattr(text, "PIECE_BYTES", part_bytes)
            patch.setattr(stream, "READ_BYTES", read_bytes)
            patch.setattr(stream, "STEP_BYTES", max(read_bytes // 2, 1))
            patch.setattr(cuts, "SEEK_BYTES", read_bytes)
            return [record for part in formats.parts(path, field, separator) for record in formats.read(part)]

    return read


@pytest.fixture
def texts_of() -> Callable[[list[Record]], Iterator[str]]:
    """The texts of documents, all of which must be documents."""

    def texts(records: list[Record]) -> Iterator[str]:
        for record in records:
            assert isinstance(record, Document)
            yield record.text

    return texts
