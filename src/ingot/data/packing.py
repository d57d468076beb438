"""Best-fit packing: whole documents put into blocks, computed from their lengths alone and kept beside the token cache.

A document longer than a block is cut into whole blocks and a rest; rests and short documents share blocks. After Ding
et al. (2024, arXiv:2404.10830): pieces in the order of falling size, each into the fullest block that still holds it.

A conversation is cut behind an answer instead, and what goes on is led by the end token, as a prompt is from which the
oldest turns were dropped. An answer that does not fit with what it answers is left out. The mask shows where answers
end, so this needs neither the text nor the template, and one token cache serves every context.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingot.data.cache import TokenView
from ingot.errors import UserError
from ingot.files import new_file

Layout = Literal["slices", "best_fit"]  # how a stream becomes blocks: cut at every length, or by document
Mask = Callable[[int, int], NDArray[np.bool_] | None]  # which of a range of tokens are learned; None: all
WINDOW = 8_192  # blocks' worth of tokens that are packed among themselves: bounds the memory
PIECE = np.dtype([("begin", "<i8"), ("size", "<i4"), ("led", "?")])  # tokens [begin, begin + size) of a view
# led: the end token stands before them in the block, for they go on with a conversation


class Cuts(NamedTuple):
    """What packing made of conversations that are longer than a block."""

    conversations: int  # that are cut
    pieces: int  # that go on with one
    tokens: int  # of turns that fit into no block, left out


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
        Raises UserError where no answer fits into a block, and where the files can't be written.
        """
        pieces, bounds = folder / f"{name}.pieces", folder / f"{name}.bounds"  # the second is written last
        if not _whole(pieces, bounds):
            with new_file(bounds) as last, new_file(pieces) as file:
                end = 0
                last.write(np.array([0], "<i8").tobytes())
                for found in _windows(view, length):
                    blocks = best_fit(found["size"] + found["led"], length)
                    file.write(found[np.argsort(blocks, kind="stable")].tobytes())
                    ends = end + np.cumsum(np.bincount(blocks), dtype="<i8")
                    last.write(ends.tobytes())
                    end = int(ends[-1]) if len(ends) else end
                if not end:
                    raise nothing_fits(length)
        return cls(pieces, bounds)

    def pieces(self, block: int) -> NDArray[np.void]:
        """The pieces of a block, in the order of the stream: records of `begin`, `size` and `led`."""
        low, high = self._bounds[block : block + 2].tolist()
        return self._pieces[low:high]

    def cuts(self, view: TokenView) -> Cuts:
        """What became of the long conversations of `view`."""
        if not view.masked:
            return Cuts(0, 0, 0)
        going_on = self._pieces["begin"][self._pieces["led"]]
        cut = np.unique(np.searchsorted(view.starts, going_on, "right"))
        kept = int(self._pieces["size"].sum(dtype=np.int64))
        return Cuts(len(cut), len(going_on), view.tokens - kept)


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
            yield cut_up(starts, length, view.mask)
        carried = starts[-1:]
    yield cut_up(np.append(carried, view.tokens), length, view.mask)


def nothing_fits(length: int) -> UserError:
    """The error for conversations of which no block of `length` tokens can be made."""
    what = f"no answer fits, with what it answers, into {length} tokens"
    return UserError(what, where="data.sources", mend="take a longer model.context")


def cut_up(bounds: NDArray[np.int64], length: int, mask: Mask) -> NDArray[np.void]:
    """The documents between `bounds` as pieces that fit into `length` tokens; `mask` says which are learned."""
    long = np.flatnonzero(np.diff(bounds) > length)
    if mask(0, 1) is None or not len(long):
        return _cut_anywhere(bounds, length)
    found, done = [], 0
    for place in long.tolist():
        begin, end = bounds[place : place + 2].tolist()
        learned = mask(begin, end)
        if learned is not None and not learned[0]:  # a text is learned with the end token that leads it
            found += [_cut_anywhere(bounds[done : place + 1], length), _cut_behind_answers(begin, learned, length)]
            done = place + 1
    return np.concatenate([*found, _cut_anywhere(bounds[done:], length)])


def _cut_behind_answers(begin: int, learned: NDArray[np.bool_], length: int) -> NDArray[np.void]:
    """A conversation from `begin` on, longer than `length` tokens, as pieces that end with what is `learned`."""
    ends = np.flatnonzero(learned & ~np.append(learned[1:], False)) + 1  # of the answers
    pieces: list[tuple[int, int, bool]] = []
    answer, place = 0, 0
    while answer < len(ends):
        room = length - bool(place)
        fitting = int(np.searchsorted(ends, place + room, "right"))
        if fitting > answer:
            end = len(learned) if fitting == len(ends) and len(learned) - place <= room else int(ends[fitting - 1])
            pieces.append((begin + place, end - place, bool(place)))
        answer = max(fitting, answer + 1)
        place = int(ends[answer - 1])
    return np.array(pieces, PIECE)


def _cut_anywhere(bounds: NDArray[np.int64], length: int) -> NDArray[np.void]:
    """The documents between `bounds` as pieces of at most `length` tokens."""
    sizes = np.diff(bounds)
    counts = -(-sizes // length)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of a piece in its document
    pieces = np.zeros(len(place), PIECE)
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
