"""The order of the data as a function: block i of a run is computed from (seed, i), never stored or shuffled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ingot.data.bits import mixed
from ingot.data.mix import Mixture

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
    return mixed(values + np.uint64(0x9E3779B97F4A7C15))


class Order:
    """The order in which sets of blocks are trained on, each epoch after epoch for itself, in the given mixture.

    `counts` (sets,): blocks of each set; no `mixture`: there is one set. An epoch of a set has every block of it once.
    """

    def __init__(self, counts: Sequence[int], seed: int, mixture: Mixture | None = None):
        self.counts = tuple(counts)
        self._seed = seed
        self.mixture = mixture or Mixture([[1]])

    def places(self, first: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The set of each of the blocks [first, end) of the run, and which block of that set it is."""
        sets, blocks = self.mixture.places(np.arange(first, end))
        epochs, blocks = np.divmod(blocks, np.array(self.counts)[sets])
        for place, epoch in sorted(set(zip(sets.tolist(), epochs.tolist(), strict=True))):
            own = (sets == place) & (epochs == epoch)
            blocks[own] = permute(blocks[own], self.counts[place], drawn(self._seed, place, epoch))
        return sets, blocks

    def shares(self, end: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of the blocks [0, end) of the run, each set's part, and the epochs that it goes through: (sets,) each."""
        taken = self.mixture.taken(end)
        return taken / end, taken / np.array(self.counts)


def drawn(seed: int, place: int, number: int) -> int:
    """A pseudorandom 64-bit integer for each `number` of each `place`, both from 0 on.

    Mixed, so that epoch 1 of seed 7 is not epoch 0 of seed 8.
    """
    return int(_mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64((place << 40) + number))[0])
