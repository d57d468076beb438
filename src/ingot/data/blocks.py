"""Blocks: the rows that an epoch of a token stream is cut into, in which every token but the first is a target once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ingot.data.cache import TokenCache, TokenView
from ingot.data.packing import Cuts, Layout, Packing
from ingot.errors import UserError
from ingot.model.objective import IGNORED


class Blocks(Protocol):
    """A numbered set of blocks of `length` tokens."""

    length: int
    count: int
    """blocks in an epoch"""
    tokens: int
    """of an epoch, padding included"""

    def fill(
        self, number: int, inputs: NDArray[np.int64], targets: NDArray[np.int64], starts: NDArray[np.bool_]
    ) -> None:
        """Write block `number` into rows (length,) each, which hold padding: 0, -100 and False.

        `starts`: where a document, or a piece of one, begins.
        """


class Slices:
    """The stream cut at every `length` tokens; the last block may be short."""

    def __init__(self, view: TokenView, length: int):
        self._view, self.length, self.tokens = view, length, view.tokens
        self.count = max(1, -(-(view.tokens - 1) // length))

    def fill(
        self, number: int, inputs: NDArray[np.int64], targets: NDArray[np.int64], starts: NDArray[np.bool_]
    ) -> None:
        """Write block `number`, as `Blocks` says."""
        begin = number * self.length
        count = copy_tokens(self._view, begin, inputs, targets)
        starts[self._view.starts_within(begin, begin + count) - begin] = True


class Bins:
    """Whole documents, those longer than a block in pieces, packed by best fit; what stays free is padding.

    A conversation that goes on in another piece is led there by the end token, as it is at its begin.

    Rows shorter than the block, as a stage can have them, cut it once more, and a document with it.
    """

    def __init__(self, view: TokenView, length: int, packing: Packing):
        self._view, self.length, self._packing = view, length, packing
        self.count, self.tokens = packing.count, packing.count * length
        self._end = int(view.read(0, 1)[0])  # which leads the first document as well

    @property
    def cuts(self) -> Cuts:
        """What became of long conversations."""
        return self._packing.cuts(self._view)

    def fill(
        self, number: int, inputs: NDArray[np.int64], targets: NDArray[np.int64], starts: NDArray[np.bool_]
    ) -> None:
        """Write block `number`, as `Blocks` says."""
        place = 0
        for begin, size, led in self._packing.pieces(number).tolist():
            starts[place] = True
            if led:  # the token behind it is no answer's, so there is nothing to learn
                inputs[place] = self._end
                place += 1
            own = slice(place, place + size)
            copy_tokens(self._view, begin, inputs[own], targets[own])
            place += size


def copy_tokens(view: TokenView, begin: int, inputs: NDArray[Any], targets: NDArray[Any]) -> int:
    """Fill `inputs` with the tokens from `begin` on and `targets` with those one place on, as far as the view goes.

    Returns how many there are. A target that the view's mask leaves out becomes -100.
    """
    tokens = view.read(begin, begin + len(inputs) + 1)
    count = len(tokens) - 1
    inputs[:count], targets[:count] = tokens[:-1], tokens[1:]
    mask = view.mask(begin + 1, begin + 1 + count)
    if mask is not None:
        targets[:count][~mask] = IGNORED
    return count


def blocks_of(cache: TokenCache, length: int, layout: Layout, *, apart: bool) -> list[Blocks]:
    """The training text of `cache` as one set of blocks or, with `apart`, as one for each source.

    Raises UserError for a source that has nothing to train on, and where a packing can't be written.
    """
    views = {"all": cache.train}
    if apart:
        views = {str(source): cache.train.of(source) for source in range(len(cache.sources))}
    for source, view in views.items():
        if view.tokens < 2:
            name = cache.sources[int(source)]["name"] if apart else "the sources"
            raise UserError(f"{name}: nothing to train on", where="data.sources", mend="leave it out, or hold out less")
    if layout == "slices":
        return [Slices(view, length) for view in views.values()]
    return [Bins(view, length, _packing(cache.folder, view, length, name)) for name, view in views.items()]


def remarks(cache: TokenCache, sets: Sequence[Blocks]) -> Iterator[str]:
    """What became of the training text of `cache` in blocks that are no plain slices of it, in lines for a person."""
    bins = [one for one in sets if isinstance(one, Bins)]
    if not bins:
        if cache.train.masked:
            yield "data.packing=slices cuts conversations anywhere; best_fit cuts them between turns alone"
        return
    length, cuts = bins[0].length, Cuts(*map(sum, zip(*(one.cuts for one in bins), strict=True)))
    filled = cache.train.tokens - cuts.tokens + cuts.pieces
    padding = 1 - filled / sum(one.tokens for one in bins)
    yield f"best-fit packing: {sum(one.count for one in bins):,} blocks, {padding:.1%} padding"
    if cuts.conversations:
        yield (
            f"longer than {length:,} tokens: {cuts.conversations:,} of {cache.train.documents:,} conversations, "
            f"cut between turns; {cuts.pieces:,} pieces go on with one"
        )
    if cuts.tokens:
        yield f"left out {cuts.tokens:,} tokens of turns that do not fit into {length:,} with what they answer"


def _packing(folder: Path, view: TokenView, length: int, name: str) -> Packing:
    return Packing.of(view, length, folder, f"packing-{length}-{name}")
