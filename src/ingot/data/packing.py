"""Best-fit packing: whole documents put into blocks, computed from their lengths alone and kept beside the token cache.

A document longer than a block is cut into whole blocks and a rest; rests and short documents share blocks. After Ding
et al. (2024, arXiv:2404.10830): pieces in the order of falling size, each into the fullest block that still holds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ingot.data.cache import TokenView
from ingot.files import new_file

Layout = Literal["slices", "best_fit"]  # how a stream becomes blocks: cut at every length, or by document
WINDOW = 8_192  # blocks' worth of tokens that are packed among themselves: bounds the memory
PIECE = np.dtype([("begin", "<i8"), ("size", "<i4")])  # tokens [begin, begin + size) of a view


class Packing:
    """The pieces of each block: `pieces` in the order of the blocks, those of block i from `bounds[i]` to the next."""

    def __init__(self, pieces: Path, bounds: Path):
        self._pieces = np.memmap(pieces, PIECE, "r")
        self._bounds = np.memmap(bounds, "<i8", "r")
        self.count = len(self._bounds) - 1

    @classmethod
    def of(cls, view: TokenView, length: int, folder: Path, name: str) -> Packing:
        """The packing of `view`, which is not empty, into blocks of `length` tokens: found as `folder/name`, or made.

        The same view and length give the same files to the byte, so that processes need not agree who makes them.
        """
        pieces, bounds = folder / f"{name}.pieces", folder / f"{name}.bounds"  # the second is written last
        if not _whole(pieces, bounds):
            with new_file(bounds) as last, new_file(pieces) as file:
                end = 0
                last.write(np.array([0], "<i8").tobytes())
                for found in _windows(view, length):
                    blocks = best_fit(found["size"], length)
                    file.write(found[np.argsort(blocks, kind="stable")].tobytes())
                    ends = end + np.cumsum(np.bincount(blocks), dtype="<i8")
                    last.write(ends.tobytes())
                    end = int(ends[-1])
        return cls(pieces, bounds)

    def pieces(self, block: int) -> NDArray[np.void]:
        """The pieces of a block, in the order of the stream: records of `begin` and `size`."""
        low, high = self._bounds[block : block + 2].tolist()
        return self._pieces[low:high]


def _whole(pieces: Path, bounds: Path) -> bool:
    """Whether both files are there, and as long as they say."""
    try:
        with bounds.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            return pieces.stat().st_size == int.from_bytes(file.read(), "little") * PIECE.itemsize > 0
    except OSError:
        return False


def _windows(view: TokenView, length: int) -> Iterator[NDArray[np.void]]:
    """The pieces of all documents in the order of the stream, a window's worth at a time."""
    carried = np.zeros(0, np.int64)  # the start of the document whose end the next window knows
    for begin in range(0, view.tokens, WINDOW * length):
        starts = np.concatenate([carried, view.starts_within(begin, begin + WINDOW * length)])
        if len(starts) > 1:
            yield cut_up(starts, length)
        carried = starts[-1:]
    yield cut_up(np.append(carried, view.tokens), length)


def cut_up(bounds: NDArray[np.int64], length: int) -> NDArray[np.void]:
    """The documents between `bounds` as pieces of at most `length` tokens."""
    sizes = np.diff(bounds)
    counts = -(-sizes // length)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of a piece in its document
    pieces = np.empty(len(place), PIECE)
    pieces["begin"] = np.repeat(bounds[:-1], counts) + place * length
    pieces["size"] = np.minimum(length, np.repeat(bounds[1:], counts) - pieces["begin"])
    return pieces


def best_fit(sizes: NDArray[np.integer], room: int) -> NDArray[np.int64]:
    """The bin of each piece by best-fit decreasing; sizes (pieces,) in 1..room -> (pieces,), bins from 0 on.

    Bins of equal room are interchangeable, and so are pieces of equal size: a whole group of bins is filled at once, so
    that the work grows with the different sizes and not with the pieces (but for their sorting).
    """
    order = np.argsort(-sizes, kind="stable")
    bin_of = np.empty(len(sizes), np.int64)
    groups: list[list[int]] = [[] for _ in range(room + 1)]  # the bins of each free room
    present, opened = 0, 0  # bit r: some bin has free room r; bins so far
    descending = sizes[order]
    begin = 0
    for end in (np.flatnonzero(np.diff(descending, append=0)) + 1).tolist():  # the pieces of one size end here
        size = int(descending[begin])
        while begin < end:
            fitting = present >> size
            free = size + (fitting & -fitting).bit_length() - 1 if fitting else room
            each = free // size
            wanted = -(-(end - begin) // each)
            if not fitting:
                groups[room] = list(range(opened, opened + wanted))
                opened += wanted
            chosen, groups[free] = groups[free][:wanted], groups[free][wanted:]
            placed = min(end - begin, each * len(chosen))
            bin_of[order[begin : begin + placed]] = np.repeat(chosen, each)[:placed]
            begin += placed
            last = placed - each * (len(chosen) - 1)  # pieces in the last bin, which may stay less full
            groups[free - each * size] += chosen[:-1]
            groups[free - last * size].append(chosen[-1])
            for changed in (free, free - each * size, free - last * size):
                present = present | 1 << changed if groups[changed] else present & ~(1 << changed)
    return bin_of
