"""Parquet: row groups of columns, one of which holds the text. Needs pyarrow, which `ingot[data]` brings."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from ingot.data.document import Dropped
from ingot.data.formats.stream import BROKEN, CUT, READ_BYTES, Damage, content, file_size, packing, reach
from ingot.data.formats.table import TEXT_FIELDS, Row, Table
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.files import disk_errors

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch
    from pyarrow.parquet import ParquetFile

MAGIC = b"PAR1"  # at both ends of a file
BATCH_BYTES = 4 * 2**20  # of content that is turned into rows at once, about
BATCH_ROWS = 2**14  # at most


class Parquet(Table):
    """Row groups: the part's are those that start in the bytes [begin, end). An offset is the number of a row."""

    @classmethod
    def of(cls, path: Path, separator: str, size: int) -> list[Self]:
        """Runs of row groups; a file that is packed, or damaged as a whole, is one part."""
        end, cuts = file_size(path), [0]
        try:
            with _opened(path) as file:
                for start in [] if packing(path) else _starts(file, end):
                    if start - cuts[-1] >= size:
                        cuts.append(start)
        except Damage:  # which reading will account for
            cuts = [0]
        return [cls(path, begin, stop) for begin, stop in pairwise([*cuts, end])]

    def place(self, offset: int) -> str:
        """`path, row n`, the first row being 1."""
        return f"{self.name}, row {offset + 1:,}"

    def expansion(self) -> float:
        """What the columns of the part's field take unpacked, as a share of the whole file."""
        if packing(self.path):
            return super().expansion()
        try:
            with _opened(self.path) as file:
                return _expansion(file, file_size(self.path), self.field)
        except Damage:
            return 1.0

    def text_field(self, named: str = "") -> str:
        """`named`, or the preferred column of text, or else as of any table. Raises UserError for what is no text."""
        try:
            with _opened(self.path) as file:
                types = _types(file)
        except Damage:
            return named or TEXT_FIELDS[0]
        if named in types and (_is_text(types[named]) or _is_nested(types[named])):
            return named
        if named and "+" not in named:
            what = f"the column {named!r} holds {types[named]}" if named in types else f"there is no column {named!r}"
            texts = [name for name, kind in types.items() if _is_text(kind)]
            raise UserError(what, where=self.name, mend=f"columns of text are: {', '.join(texts[:8]) or 'none'}")
        columns = (name for name in TEXT_FIELDS if name in types and _is_text(types[name]))
        return named or next(columns, "") or super().text_field()

    def found(self) -> Iterator[Row | Dropped]:
        """Every row of the part's groups: all columns, or the column `field` alone where that is text."""
        with _opened(self.path) as file:
            types = _types(file)
            text = self.field if self.field in types and _is_text(types[self.field]) else ""
            first = 0
            for group, start in enumerate(_starts(file, file_size(self.path))):
                rows = max(0, file.metadata.row_group(group).num_rows)
                if self.begin <= start < self.end or packing(self.path):
                    yield from _rows(file, group, first, rows, text)
                first += rows


def _rows(file: ParquetFile, group: int, first: int, rows: int, text: str) -> Iterator[Row | Dropped]:
    """The rows of one group, which have the numbers from `first` on; those behind damage are dropped together."""
    row = first
    described = file.metadata.row_group(group)
    each = max(1, described.total_byte_size // max(1, rows))
    size = max(1, min(BATCH_ROWS, BATCH_BYTES // each))
    try:
        for batch in file.iter_batches(size, [group], [text] if text else None, use_threads=False):
            for fields in _mappings(batch, text):
                yield Dropped("invalid UTF-8", row) if fields is None else Row(fields, row)
                row += 1
    except _faults():
        pass
    if row < first + rows:
        yield Dropped(BROKEN, row, first + rows - row)


def _mappings(batch: RecordBatch, text: str) -> Iterator[dict[str, Any] | None]:
    """A mapping for each row; None for one whose text is no UTF-8, which a file may well hold."""
    import pyarrow

    if text and _is_bytes(batch.schema.field(0).type):
        batch = batch.set_column(0, text, batch.column(0).cast(pyarrow.large_string(), safe=False))
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows > 1:
            for row in range(batch.num_rows):
                yield from _mappings(batch.slice(row, 1), text)
        else:
            yield None


def column_expansion(file: IO[bytes], size: int, field: str) -> float:
    """As `Parquet.expansion`, of an open file of `size` bytes. Raises what pyarrow raises for one that is damaged."""
    from pyarrow.parquet import ParquetFile

    return _expansion(ParquetFile(file), size, field)


def _expansion(file: ParquetFile, size: int, field: str) -> float:
    """Bytes of the columns that make up `field`, unpacked, for each byte of the file; empty: of all columns."""
    names, unpacked = set(field.split("+")) if field else set(), 0
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if not names or column.path_in_schema.partition(".")[0] in names:
                unpacked += max(0, column.total_uncompressed_size)
    return unpacked / max(1, size) or 1.0


def _types(file: ParquetFile) -> dict[str, DataType]:
    """Type of each column by its name; raises Damage for a schema that says nothing."""
    try:
        return dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    except _faults():
        raise Damage(BROKEN, 0) from None


def _is_text(kind: DataType) -> bool:
    """Strings, and bytes that may be strings: some writers don't say which they are."""
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    return any(test(plain) for test in (types.is_string, types.is_large_string, types.is_string_view, _is_bytes))


def _is_bytes(kind: DataType) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_nested(kind: DataType) -> bool:
    from pyarrow import types

    return types.is_nested(kind)


def _starts(file: ParquetFile, end: int) -> list[int]:
    """The byte at which each row group starts: ascending and in the file, even if damage says otherwise."""
    starts = [0]
    for group in range(1, file.metadata.num_row_groups):
        column = file.metadata.row_group(group).column(0)
        starts.append(min(column.dictionary_page_offset or end, column.data_page_offset, end - 1))
    return [*accumulate(starts[: file.metadata.num_row_groups], max)]


@contextmanager
def _opened(path: Path) -> Iterator[ParquetFile]:
    """The file, if its footer can be read; else raises Damage. Raises UserError where it can't be reached."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        what = "parquet files are read with pyarrow, which is not installed"
        raise UserError(what, where=str(path), mend=pip_install("data")) from None
    with _seekable(path) as handle:
        try:
            file = ParquetFile(handle, buffer_size=READ_BYTES, page_checksum_verification=True)
        except _faults():
            raise Damage(BROKEN if _has_its_end(handle) else CUT, 0) from None
        yield file


@contextmanager
def _seekable(path: Path) -> Iterator[IO[bytes]]:
    if not packing(path):
        with reach(path, lambda: path.open("rb")) as handle:
            yield handle
        return
    with tempfile.TemporaryFile() as handle:  # a parquet file is read from its end
        with disk_errors(Path(tempfile.gettempdir())):
            for block in content(path):
                handle.write(block)
        yield handle


def _has_its_end(handle: IO[bytes]) -> bool:
    handle.seek(0, os.SEEK_END)
    size = handle.tell()
    handle.seek(max(0, size - len(MAGIC)))
    return handle.read() == MAGIC


def _faults() -> tuple[type[Exception], ...]:
    """What pyarrow raises for a file that it can't read."""
    from pyarrow import ArrowException

    return (ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError)
