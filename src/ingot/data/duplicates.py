"""Documents that repeat others: one decision over the signatures of all of them, in bounded memory.

Documents are ranked, held-out ones before all others and each kind in its order. Of those that repeat each other the
first by rank stays: so a document that repeats a held-out one goes, wherever it stands, and none of those that we
measure on is learnt by heart. Held-out documents always stay. What is sorted lies on the disk, in partitions that
memory can hold; what memory holds of all documents at once is two bits for each.

A near duplicate is one whose estimated Jaccard similarity to a document before it reaches what is asked for; the two
are compared where they agree in a band of their MinHashes (Broder, 1997; Leskovec et al., Mining of Massive Datasets,
3.4). No two documents that stay and share a band are near duplicates, and each that goes resembles one that stays, or
one that resembles such a one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingot.data.bits import mixed
from ingot.data.partitions import LongArray, Partitions
from ingot.data.signatures import SLOTS, signature
from ingot.errors import UserError
from ingot.files import disk_errors, make_folder, write_atomically

REASONS = ("", "exact duplicate", "near duplicate", "repeats a held-out document")  # why a document goes, by its fate
KEPT, EXACT, NEAR, HELD = range(4)
MEMORY_BYTES = 256 * 2**20
RECALL = Fraction(99, 100)  # of pairs that are as alike as is asked for, this share meets in a band, or more
LEADERS = 4096  # documents of one bucket that the others in it are compared with, at most: or it could take for ever
COMPARED = 1024  # pairs at once


@dataclass(frozen=True)
class Found:
    """How many documents there are, and how many met each fate: `counts[i]` belongs to `REASONS[i]`."""

    documents: int
    counts: tuple[int, ...]


def find(files: Sequence[Path], folder: Path, similarity: float | None, memory_bytes: int = MEMORY_BYTES) -> Found:
    """Decide on each document of `files`, which hold signatures one behind the other; `fates` reads what on which.

    `similarity`: the least of near duplicates; None: exact ones alone. The outcome depends neither on `memory_bytes`
    nor on the machine. Raises UserError for a file that is not whole.
    """
    scratch = folder / "scratch"
    with disk_errors(folder):
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        make_folder(scratch)
        job = _Job(files, signature(near=similarity is not None), scratch, memory_bytes)
        job.exact()
        if similarity is not None:
            share = Fraction(similarity).limit_denominator(1000)
            for columns in bands(share):
                job.near(columns, math.ceil(share * SLOTS))
        shutil.rmtree(scratch)
        counts = sum((job.write(number, _fates(folder, number)) for number in range(len(files))), np.zeros(4, np.int64))
    return Found(job.documents, tuple(counts.tolist()))


def fates(folder: Path, number: int) -> NDArray[np.uint8]:
    """What becomes of each document of file `number` (documents,): an index into `REASONS`, 0 where it stays."""
    return np.fromfile(_fates(folder, number), np.uint8)


def bands(similarity: Fraction) -> list[slice]:
    """The columns of each band: the widest for which `RECALL` holds, as narrower ones meet by chance more often."""
    width = max(
        width
        for width in range(1, SLOTS + 1)
        if 1 - (1 - similarity**width) ** (SLOTS // width) >= RECALL or width == 1
    )
    return [slice(begin, begin + width) for begin in range(0, SLOTS - width + 1, width)]


def _fates(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.fates"


class _Job:
    """One decision under way."""

    def __init__(self, files: Sequence[Path], record: np.dtype[Any], scratch: Path, memory_bytes: int):
        self._files, self._record, self._scratch, self._memory = files, record, scratch, memory_bytes
        self.documents = sum(_rows(file, record) for file in files)
        self._held = 0  # held-out documents: ranks below this
        self._written = 0  # documents beside them whose fates are on the disk
        self._marks = _Marks(self.documents)
        self._minhashes = LongArray(scratch / "minhashes", SLOTS)

    def exact(self) -> None:
        """Rank all documents, keep their MinHashes by rank, and mark each that equals one before it."""
        digests = Partitions(self._scratch / "digests", 3, self.documents, self._room(160))
        rank = 0
        for held in (True, False):
            for file in self._files:
                for records in self._chunks(file):
                    own = records[records["held"] == held]
                    by_rank = np.arange(rank, rank + len(own), dtype=np.uint64)
                    digests.add(np.column_stack([own["digest"], by_rank]))
                    if "minhash" in (self._record.names or ()):
                        self._minhashes.append(own["minhash"])
                    rank += len(own)
            self._held = rank if held else self._held
        for chunks in digests:
            firsts = np.zeros((0, 3), np.uint64)
            for chunk in chunks:
                rows: NDArray[np.uint64] = np.concatenate([firsts, chunk])
                rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]  # stable: equal digests stay in their order
                new = np.ones(len(rows), bool)
                new[1:] = (rows[1:, :2] != rows[:-1, :2]).any(axis=1)
                ranks: NDArray[np.int64] = rows[:, 2].astype(np.int64)
                leaders = ranks[new][np.cumsum(new) - 1]
                self._mark(ranks[~new], leaders[~new], EXACT)
                firsts = rows[new]

    def near(self, columns: slice, least: int) -> None:
        """Mark each document that agrees with one before it in `columns`, and in `least` of all slots."""
        folder = self._scratch / f"band-{columns.start}"
        buckets = Partitions(folder, 2, self.documents, self._room(400))
        for first, piece in self._minhashes.pieces(self._room(8 * 2 * SLOTS)):
            own = np.flatnonzero(self._marks.get(first, first + len(piece)) == KEPT)
            buckets.add(np.column_stack([_keys(piece[own, columns]), (first + own).astype(np.uint64)]))
        for chunks in buckets:
            leaders = np.zeros((0, 2), np.uint64)
            for chunk in chunks:
                rows = np.concatenate([leaders, chunk])
                order = np.argsort(rows[:, 0], kind="stable")
                leaders = self._lead(rows[order], order < len(leaders), least)
        shutil.rmtree(folder)

    def _lead(self, rows: NDArray[np.uint64], known: NDArray[np.bool_], least: int) -> NDArray[np.uint64]:
        """Mark the near duplicates among `rows` (bucket, rank), sorted; which of them lead their buckets, (n, 2).

        In each bucket the first row leads: what resembles it goes, and of what is left the first leads again. Rows that
        led before are `known`. One round takes all buckets a step further.
        """
        ranks = rows[:, 1].astype(np.int64)
        new = np.diff(rows[:, 0], prepend=~rows[:1, 0]) != 0
        bucket = np.cumsum(new) - 1
        left = np.flatnonzero(np.bincount(bucket, minlength=1)[bucket] > 1)
        by_rank = left[np.argsort(ranks[left])]
        place = np.zeros(len(rows), np.int64)
        place[by_rank] = np.arange(len(by_rank))
        minhashes = self._minhashes.take(ranks[by_rank])
        stays = np.ones(len(rows), bool)
        for _ in range(LEADERS):
            first = np.diff(bucket[left], prepend=-1) != 0
            leader, left = left[first][np.cumsum(first) - 1][~first], left[~first]
            if not len(left):
                break
            open_ = np.flatnonzero(~known[left] & (ranks[left] >= self._held))
            alike = open_[_alike(minhashes, place[left[open_]], place[leader[open_]], least)]
            self._mark(ranks[left[alike]], ranks[leader[alike]], NEAR)
            stays[left[alike]] = False
            left = left[stays[left]]
        within = np.cumsum(stays) - np.cumsum(stays)[new][bucket]  # place among those of the bucket that stay
        return rows[stays & (within < LEADERS)]

    def _mark(self, ranks: NDArray[np.int64], leaders: NDArray[np.int64], fate: int) -> None:
        """Note that the documents of `ranks` repeat `leaders`; those that repeat held-out ones go for that reason."""
        self._marks.put(ranks, np.where((leaders < self._held) & (ranks >= self._held), HELD, fate))

    def write(self, number: int, path: Path) -> NDArray[np.int64]:
        """Write the fates of file `number`; files are written in order. How many met each: (4,)."""
        copied = (records["held"].copy() for records in self._chunks(self._files[number]))  # a view would keep it all
        held = np.concatenate([np.zeros(0, bool), *copied])
        fates = np.zeros(len(held), np.uint8)
        begin = self._held + self._written
        self._written += int((~held).sum())
        fates[~held] = self._marks.get(begin, self._held + self._written)
        write_atomically(path, fates.tobytes())
        return np.bincount(fates, minlength=4)

    def _room(self, size: int) -> int:
        """How many rows may be worked on at once, if each takes `size` bytes with all that is made of it."""
        return max(2, self._memory // size)

    def _chunks(self, file: Path) -> Iterator[NDArray[Any]]:
        with file.open("rb") as open_file:
            while len(records := np.fromfile(open_file, self._record, self._room(8 * self._record.itemsize))):
                yield records


class _Marks:
    """The fate of each document by rank: two bits for each."""

    def __init__(self, count: int):
        self._four = np.zeros(-(-count // 4), np.uint8)

    def put(self, ranks: NDArray[np.int64], fates: NDArray[np.int64]) -> None:
        """Set the fates of `ranks`, none of which was set before."""
        np.bitwise_or.at(self._four, ranks // 4, (fates << (ranks % 4 * 2)).astype(np.uint8))

    def get(self, begin: int, end: int) -> NDArray[np.uint8]:
        """The fates of the ranks [begin, end)."""
        ranks = np.arange(begin, end)
        return (self._four[ranks // 4] >> (ranks % 4 * 2).astype(np.uint8)) & np.uint8(3)


def _rows(file: Path, record: np.dtype[Any]) -> int:
    count, left = divmod(file.stat().st_size, record.itemsize)
    if left:
        raise UserError("this file of signatures is not whole", where=str(file), mend="remove the token cache's folder")
    return count


def _keys(columns: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """A hash of each row: (n, width) -> (n,). Rows that meet by chance are told apart when they are compared."""
    keys = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        keys = mixed(keys + column + np.uint64(1))
    return keys


def _alike(
    minhashes: NDArray[np.uint16], one: NDArray[np.int64], other: NDArray[np.int64], least: int
) -> NDArray[np.bool_]:
    """Which pairs of rows agree in `least` slots or more: (pairs,)."""
    found = np.zeros(len(one), bool)
    for begin in range(0, len(one), COMPARED):
        here = slice(begin, begin + COMPARED)
        found[here] = np.count_nonzero(minhashes[one[here]] == minhashes[other[here]], axis=1) >= least
    return found
