"""Rows of numbers that lie on the disk because memory may not hold them: in partitions, and in one long file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 128  # rows of a file that are read together for the sake of one


class Partitions:
    """Rows of uint64, in files by the leading bits of their first column: equal ones meet in one of them.

    Each file keeps the rows in the order in which they came. The first column is a hash, so that the files are of like
    sizes: about half of `most` rows, unless many first columns are equal.
    """

    def __init__(self, folder: Path, columns: int, rows: int, most: int):
        """`rows`: how many will come; `most`: how many memory can hold."""
        folder.mkdir()
        self._folder, self._columns, self._most = folder, columns, most
        self._bits = (2 * rows // most).bit_length()

    def add(self, rows: NDArray[np.uint64]) -> None:
        """Put `rows` (n, columns) behind those that came before."""
        if not len(rows):
            return
        files = rows[:, 0] >> np.uint64(64 - self._bits) if self._bits else np.zeros(len(rows), np.uint64)
        order = np.argsort(files, kind="stable")
        numbers, begins = np.unique(files[order], return_index=True)
        for number, own in zip(numbers.tolist(), np.split(order, begins[1:]), strict=True):
            with self._file(number).open("ab") as file:
                file.write(np.ascontiguousarray(rows[own], "<u8").data)

    def __iter__(self) -> Iterator[Iterator[NDArray[np.uint64]]]:
        """Each partition, as arrays (n, columns) of at most `most` rows."""
        return (self._read(number) for number in range(2**self._bits) if self._file(number).exists())

    def _read(self, number: int) -> Iterator[NDArray[np.uint64]]:
        with self._file(number).open("rb") as file:
            while len(rows := np.fromfile(file, "<u8", self._most * self._columns)):
                yield rows.reshape(-1, self._columns)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:05d}"


class LongArray:
    """Rows of uint16 of one width in a file, written one behind the other and read by their numbers."""

    def __init__(self, path: Path, width: int):
        self._path, self._width = path, width
        path.touch()

    def append(self, rows: NDArray[Any]) -> None:
        """Put `rows` (n, width) behind those that came before."""
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(rows, "<u2").data)

    def pieces(self, most: int) -> Iterator[tuple[int, NDArray[np.uint16]]]:
        """All rows, at most `most` at a time, with the number of the first."""
        first = 0
        with self._path.open("rb") as file:
            while len(rows := np.fromfile(file, "<u2", most * self._width).reshape(-1, self._width)):
                yield first, rows
                first += len(rows)

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
        """The rows of these numbers, which ascend: (n, width)."""
        taken = np.empty((len(numbers), self._width), np.uint16)
        places, begins = np.unique(numbers // NEIGHBOURS, return_index=True)
        with self._path.open("rb") as file:
            for place, (begin, end) in zip(places.tolist(), pairwise([*begins.tolist(), len(numbers)]), strict=True):
                file.seek(place * NEIGHBOURS * self._width * 2)
                rows = np.fromfile(file, "<u2", NEIGHBOURS * self._width).reshape(-1, self._width)
                taken[begin:end] = rows[numbers[begin:end] - place * NEIGHBOURS]
        return taken
