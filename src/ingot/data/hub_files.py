"""Files of the Hugging Face hub, or of the web, read as they come in by the `datasets` library."""

from __future__ import annotations

import contextlib
import gzip
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ingot.data.conversations import LISTS
from ingot.data.document import Dropped
from ingot.data.formats.cuts import split
from ingot.data.formats.lines import row
from ingot.data.formats.parquet import column_expansion
from ingot.data.formats.stream import (
    BROKEN,
    CUT,
    HEAD_BYTES,
    READ_BYTES,
    UNPACKING_ERRORS,
    Damage,
    expansion_of,
    packing,
)
from ingot.data.formats.table import Row, Rows
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.hub import Outage, Patience, of_hub

BATCH_ROWS = 256  # taken from the library at once
LINES = ("lines", "text")  # ways of reading that cut a file at line ends
PACKED = (".gz", ".zst", ".bz2", ".xz", ".lz4")  # what the library unpacks by itself
# How the files of each suffix are read. Lines are taken as they stand and read by our own rules: the library would make
# one table of all, and a single record with other fields, or a damaged one, would end it.
READERS = {
    ".parquet": "parquet",
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "lines",  # or `json`: one list of records
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".arrow": "arrow",
}

_log = logging.getLogger(__name__)


def reader_of(file: str) -> str:
    """How a file of this name is read. Raises UserError for a kind that is not."""
    suffixes = [suffix for suffix in PurePosixPath(file).suffixes if suffix not in PACKED]
    suffix = suffixes[-1].lower() if suffixes else ""
    if suffix not in READERS:
        mend = f"name others by files=… ({', '.join(READERS)}, also packed)"
        raise UserError(f"files of the kind {suffix!r} are not read", where=file, mend=mend)
    return READERS[suffix]


def required_datasets() -> Any:
    """The `datasets` library. Raises UserError where it is not installed."""
    try:
        import datasets
    except ImportError:
        raise UserError("reading from the hub needs `datasets`", mend=pip_install("data")) from None
    return datasets


@dataclass(frozen=True)
class HubPart(Rows):
    """One file of a dataset at one commit. The offset of a record is its byte in the file unpacked, or its row."""

    dataset: str  # owner/name
    revision: str  # commit
    file: str  # path in the dataset, or a web address
    size: int  # bytes, packed if it is packed
    reader: str
    patience: Patience
    field: str = ""  # of a record that holds the text; empty: all of them are read
    expands: float = 1.0  # bytes of content for a byte of the file

    @property
    def name(self) -> str:
        """The dataset, its commit and the file in it; or the address."""
        return self.file if "://" in self.file else f"{self.dataset}@{self.revision[:7]}/{self.file}"

    @property
    def address(self) -> str:
        """Where the library finds the file."""
        return self.file if "://" in self.file else f"hf://datasets/{self.dataset}@{self.revision}/{self.file}"

    def expansion(self) -> float:
        """How many bytes of content a byte of the file holds, as `measured` found it of one like it."""
        return self.expands

    def measured(self) -> float:
        """How many bytes of content a byte of the file holds: its head tells or, of a parquet file, its end.

        1 where it is damaged. Raises what the library raises where the hub can't be reached.
        """
        kind = packing(Path(self.file))
        if not kind and self.reader != "parquet":
            return 1.0
        required_datasets()
        from datasets.utils.file_utils import xopen

        try:
            with contextlib.closing(xopen(self.address, "rb")) as file:
                if kind:
                    return expansion_of(file.read(HEAD_BYTES), kind)
                return column_expansion(file, self.size, self.field)
        except Exception as error:
            if of_hub(error) or not _tells_of_damage(error):
                raise
            return 1.0

    def place(self, offset: int) -> str:
        """The file, and the byte or the number of the record."""
        return f"{self.name}, {'byte' if self.reader in LINES else 'record'} {offset:,}"

    def found(self) -> Iterator[Row | Dropped]:
        """Every record; an outage is waited out, and the stream goes on at the record where it broke.

        Raises Damage where the file can't be read on, and Unreachable when patience is out.
        """
        outage = Outage(self.name, self.patience, _log.warning)
        at, careful = 0, False
        while True:
            try:
                for record, end in self._from(at, careful):
                    if end > at:
                        at = end
                        outage.over()
                    if record:
                        yield record
                return
            except Exception as error:
                if of_hub(error):
                    outage.wait(error)
                elif not _tells_of_damage(error):
                    raise
                elif careful:
                    raise Damage(CUT if isinstance(error, EOFError) else BROKEN, at) from None
                else:
                    careful = True  # what is whole before the damage may have come in one block with it

    def _from(self, at: int, careful: bool) -> Iterator[tuple[Row | Dropped | None, int]]:
        """Records from `at` on, each with where the next one starts; None for a line that is no record."""
        return self._lines(at, careful) if self.reader in LINES else self._rows(at, careful)

    def _lines(self, at: int, careful: bool) -> Iterator[tuple[Row | Dropped | None, int]]:
        """Of lines, `at` counts bytes as they are unpacked. The library opens the file, unpacks it and tries again."""
        library = required_datasets()
        from datasets.utils.file_utils import xopen

        with contextlib.closing(
            xopen(library.StreamingDownloadManager().download_and_extract(self.address), "rb")
        ) as file:
            file.seek(at)
            blocks = iter(lambda: file.read(1 if careful else READ_BYTES), b"")
            for offset, line in split(blocks, b"\n", at):
                yield row(line, offset) if self.reader == "lines" else _text(line, offset), offset + len(line) + 1

    def _rows(self, at: int, careful: bool) -> Iterator[tuple[Row, int]]:
        """Of tables, `at` counts rows."""
        options: dict[str, Any] = {}
        if self.reader == "csv":
            options = {"sep": "\t" if ".tsv" in self.file else ",", "keep_default_na": False}
        elif self.reader == "parquet" and self.field and self.field not in LISTS and "+" not in self.field:
            options = {"columns": [self.field]}
        stream = required_datasets().load_dataset(
            self.reader, data_files={"train": [self.address]}, split="train", streaming=True, **options
        )
        passed = 0
        for table in stream.with_format("arrow").iter(batch_size=1 if careful else BATCH_ROWS):
            fresh = table.slice(max(0, at - passed))
            passed += len(table)
            for offset, fields in enumerate(fresh.to_pylist(), passed - len(fresh)):
                yield Row(fields, offset), offset + 1


def _text(line: bytes, offset: int) -> Row | None:
    """A line of plain text, which is a document as `datasets` has it; `document` will name what is no UTF-8."""
    text = line.decode("utf-8-sig" if offset == 0 else "utf-8", errors="surrogateescape").rstrip("\r")
    return Row({"text": text}, offset) if text and not text.isspace() else None


def _tells_of_damage(error: Exception) -> bool:
    """Whether it says that a file's content is not whole. pyarrow tells so of a parquet file by a bare OSError."""
    bare = type(error) in (OSError, gzip.BadGzipFile)
    return bare or isinstance(error, UNPACKING_ERRORS)  # type: ignore[arg-type]  # isal's stub calls its error a value
