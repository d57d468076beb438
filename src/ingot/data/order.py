"""The order of the data as a function: block i of a run is computed from (seed, i), never stored or shuffled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 8
LEAST_BITS = 2  # a half of a Feistel network is a bit at least


def permute(index: ArrayLike, size: int, seed: int) -> NDArray[np.int64]:
    """Where a pseudorandom permutation of range(size), chosen by `seed`, puts each of `index`: same shape, int64.

    A Feistel network over the next power of two (Luby and Rackoff, 1988), walked until it falls below `size` (Black
    and Rogaway, 2002): constant memory, and on average less than two walks for sizes above 2.
    """
    values = np.atleast_1d(np.asarray(index, dtype=np.uint64)).copy()
    if size < 1 or (values >= size).any():
        raise ValueError(f"an index is outside of range({size})")
    bits = max(LEAST_BITS, (size - 1).bit_length())
    keys = _mix(np.arange(ROUNDS, dtype=np.uint64) + _mix(np.array([seed % 2**64], np.uint64)))
    walking = np.arange(values.size)
    flat = values.reshape(-1)
    while walking.size:
        flat[walking] = _feistel(flat[walking], bits, keys)
        walking = walking[flat[walking] >= size]
    return values.astype(np.int64).reshape(np.shape(index))


def _feistel(values: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of [0, 2**bits): each round changes one half by a function of the other."""
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = (np.uint64(2**width - 1) for width in (bits // 2, bits - bits // 2))
    low, high = values & low_mask, values >> low_bits
    for place, key in enumerate(keys):
        if place % 2:
            low = low ^ (_mix(high + key) & low_mask)
        else:
            high = high ^ (_mix(low + key) & high_mask)
    return high << low_bits | low


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): every bit of the input moves every bit of the output."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


@dataclass(frozen=True)
class Order:
    """The order in which a stream of `tokens` tokens is trained on, epoch after epoch, in blocks of `length` targets.

    A block is a slice: its targets are the tokens [begin + 1, begin + 1 + length), its inputs those one place before.
    The slices tile the stream, so an epoch has every token but the very first as a target once.
    """

    tokens: int
    length: int
    seed: int

    @property
    def epoch_blocks(self) -> int:
        """Blocks in an epoch; the last of the stream may be short."""
        return max(1, -(-(self.tokens - 1) // self.length))

    def begins(self, first: int, end: int) -> NDArray[np.int64]:
        """Where in the stream the blocks [first, end) of the run begin; each epoch has an order of its own."""
        blocks = np.arange(first, end, dtype=np.int64)
        epochs, places = np.divmod(blocks, self.epoch_blocks)
        begins = np.empty_like(blocks)
        for epoch in np.unique(epochs).tolist():
            own = epochs == epoch
            begins[own] = permute(places[own], self.epoch_blocks, _epoch_seed(self.seed, epoch))
        return begins * self.length


def _epoch_seed(seed: int, epoch: int) -> int:
    """A seed for each epoch: mixed, so that epoch 1 of seed 7 is not epoch 0 of seed 8."""
    mixed: Any = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(epoch))
    return int(mixed[0])
