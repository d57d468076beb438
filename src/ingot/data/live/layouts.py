"""Tokens become blocks, as those of a cache do in `data.blocks`: a stream cut at every length, or documents packed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingot.data.build.spelling import Tokens
from ingot.data.live.plan import LivePlan
from ingot.data.packing import Layout, best_fit, cut_up, nothing_fits


def token_type(ids: np.dtype[Any]) -> np.dtype[np.void]:
    """A token on its way into a block: `start`: a document begins with it; `loss`: it is a target with loss."""
    return np.dtype([("id", ids), ("start", "?"), ("loss", "?")])


def cell_type(ids: np.dtype[Any]) -> np.dtype[np.void]:
    """A place in a block: the token there, the one that follows it, and what is known of the two."""
    return np.dtype([("input", ids), ("target", ids), ("start", "?"), ("loss", "?")])


class Blocks:
    """What is left of the documents so far, and the blocks that become of them with further ones."""

    def __init__(self, plan: LivePlan):
        self.left = np.zeros(0, token_type(plan.tokenizer.dtype))
        self._plan, self._cut = plan, LAYOUTS[plan.layout]

    def put(self, documents: Tokens) -> NDArray[np.void]:
        """The blocks (blocks, length) that are complete with `documents`."""
        new = np.zeros(len(documents.ids), self.left.dtype)
        new["id"] = documents.ids
        new["start"][np.cumsum(documents.lengths) - documents.lengths] = True
        new["loss"] = True if documents.mask is None else documents.mask
        blocks, self.left = self._cut(np.concatenate([self.left, new]), self._plan)
        return blocks


def _cells(tokens: NDArray[np.void], follows: NDArray[np.void]) -> NDArray[np.void]:
    """The tokens with those that follow them."""
    cells = np.zeros(len(tokens), cell_type(tokens.dtype["id"]))
    cells["input"], cells["target"] = tokens["id"], follows["id"]
    cells["start"], cells["loss"] = tokens["start"], follows["loss"]
    return cells


def _slices(tokens: NDArray[np.void], plan: LivePlan) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Blocks of the stream, and its rest: at least the last token, whose follower is not known yet."""
    count = max(0, len(tokens) - 1) // plan.length
    whole = count * plan.length
    return _cells(tokens[:whole], tokens[1 : whole + 1]).reshape(count, plan.length), tokens[whole:].copy()


def _packed(tokens: NDArray[np.void], plan: LivePlan) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Nothing until there is a window's worth of documents; then all of them, in blocks filled up with padding."""
    if len(tokens) < plan.room * plan.length:
        return np.zeros((0, plan.length), cell_type(tokens.dtype["id"])), tokens
    starts = np.flatnonzero(tokens["start"])
    follows = np.append(tokens[1:], tokens[:1])  # the end token leads the first document as well
    follows["loss"][np.append(starts[1:], len(tokens)) - 1] = tokens["loss"][starts]  # one's own: none knows the next
    cells = _cells(tokens, follows)
    pieces = cut_up(np.append(starts, len(tokens)), plan.length, lambda begin, end: tokens["loss"][begin:end])
    if not len(pieces):
        raise nothing_fits(plan.length)
    bins = best_fit(pieces["size"] + pieces["led"], plan.length)
    order = np.argsort(bins, kind="stable")
    blocks = np.zeros((int(bins.max()) + 1, plan.length), cells.dtype)
    place, last = 0, -1
    for number, (begin, size, led) in zip(bins[order].tolist(), pieces[order].tolist(), strict=True):
        place = place if number == last else 0
        blocks[number, place]["start"] = True
        if led:
            blocks[number, place]["input"] = tokens["id"][0]
            place += 1
        blocks[number, place : place + size] = cells[begin : begin + size]
        blocks[number, place]["start"] = not led
        place, last = place + size, number
    return blocks, tokens[:0]


LAYOUTS: dict[Layout, Callable[..., tuple[NDArray[np.void], NDArray[np.void]]]] = {
    "slices": _slices,
    "best_fit": _packed,
}
