"""Mixtures: which of several sets each row of a run comes from, as a function of the row's number.

At every prefix of the run, each set has had its exact share of the rows to less than one row, also where the weights
change on the way. This is the chairman assignment of Tijdeman (1980, Discrete Mathematics 32): copy c of a set has a
first row from which it may stand, a last row at which it must, and of the copies that may stand, the most urgent does.
With weights in whole numbers the assignment repeats, so that a table of one turn says it for all rows.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike, NDArray

LONGEST_TURN = 1_000_000  # rows; its table takes 10 MB and a few seconds
NEAR = 1e-14  # relative difference between a weight and its fraction: what rounding makes


def whole_numbers(weights: Sequence[float]) -> tuple[int, ...]:
    """`weights` as the smallest whole numbers in the same proportion; their sum is the rows of a turn.

    A weight stands for the fraction that is meant: 0.1 is a tenth, and 1 / 3 a third. Raises ValueError for
    weights that are negative or all 0, and for a turn of more than `LONGEST_TURN` rows.
    """
    if min(weights, default=0) < 0 or not sum(weights) or not math.isfinite(sum(weights)):
        raise ValueError(f"the weights {_listed(weights)} give no shares; one is to be above 0, and none below")
    exact = [Fraction(weight).limit_denominator(LONGEST_TURN) for weight in weights]
    near = all(math.isclose(*pair, rel_tol=NEAR) for pair in zip(exact, weights, strict=True))
    scale = math.lcm(*(weight.denominator for weight in exact))
    counts = [int(weight * scale) for weight in exact]
    common = math.gcd(*counts)
    if not near or sum(counts) > LONGEST_TURN * common:
        raise ValueError(f"the weights {_listed(weights)} have no simple proportion; give them with fewer digits")
    return tuple(count // common for count in counts)


def _listed(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:.12g}" for weight in weights)


@dataclass(frozen=True)
class Stretch:
    """The rows from `begin` on, up to the next stretch: one turn of them, which repeats."""

    begin: int
    taken: NDArray[np.int64]  # (sets,): rows of each set before `begin`
    table: NDArray[np.int32]  # (rows of a turn,): the set of each
    turn: NDArray[np.int64]  # (sets,): rows of each set in a turn
    earlier: NDArray[np.int32]  # (rows of a turn,): rows of the same set that precede it in the turn

    @classmethod
    def of(cls, begin: int, taken: Sequence[int], sets: Sequence[int]) -> Stretch:
        """The stretch whose turn is `sets`."""
        table = np.array(sets, np.int32)
        turn = np.bincount(table, minlength=len(taken))
        earlier = np.empty(len(table), np.int32)
        earlier[np.argsort(table, kind="stable")] = np.arange(len(table)) - np.repeat(np.cumsum(turn) - turn, turn)
        return cls(begin, np.array(taken, np.int64), table, turn, earlier)


class Mixture:
    """Sets in given proportions, which may change at given rows.

    weights (stages, sets): in any unit, 0 allowed; ends (stages - 1,): the row at which each stage but the last ends.
    Raises ValueError as `whole_numbers` does.
    """

    def __init__(self, weights: Sequence[Sequence[float]], ends: Sequence[int] = ()):
        self.stretches: list[Stretch] = []
        counts = [whole_numbers(stage) for stage in weights]
        taken = [0] * len(counts[0])
        quotas = _quotas(counts, ends)
        for gains, begin, end in zip(counts, [0, *ends], [*ends, None], strict=True):
            self._add_stage(quotas, taken, gains, begin, end)
        self._begins = np.array([stretch.begin for stretch in self.stretches])

    def _add_stage(
        self, quotas: Sequence[Quota], taken: list[int], gains: tuple[int, ...], begin: int, end: int | None
    ) -> None:
        """Assign the rows of a stage turn by turn, and all turns at once as soon as one leaves things as it found them.

        What is urgent changes only towards the end, when a copy's last row lies in the next stage.
        """
        period, row = sum(gains), begin
        tail = -(-period // min(gain for gain in gains if gain))  # rows between two of the rarest set
        while end is None or row < end:
            before, stop = tuple(taken), row + period if end is None else min(row + period, end)
            self.stretches.append(Stretch.of(row, before, _assign(quotas, taken, row, stop)))
            row = stop
            if any(now - then != gain for now, then, gain in zip(taken, before, gains, strict=True)):
                continue
            if end is None:
                return
            turns = max(0, end - row - tail) // period
            taken[:] = [now + turns * gain for now, gain in zip(taken, gains, strict=True)]
            row += turns * period

    def places(self, rows: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The set of each of `rows`, and how many rows of that set come before it in the run: the shape of `rows`."""
        rows = np.asarray(rows, np.int64)
        sets, numbers = np.empty_like(rows), np.empty_like(rows)
        which = np.searchsorted(self._begins, rows, side="right") - 1
        for place in sorted(set(which.ravel().tolist())):
            own, stretch = which == place, self.stretches[place]
            turns, within = np.divmod(rows[own] - stretch.begin, len(stretch.table))
            sets[own] = found = stretch.table[within]
            numbers[own] = stretch.taken[found] + turns * stretch.turn[found] + stretch.earlier[within]
        return sets, numbers

    def taken(self, row: int) -> NDArray[np.int64]:
        """How many of the rows before `row` come from each set: (sets,)."""
        stretch = self.stretches[int(np.searchsorted(self._begins, row, side="right")) - 1]
        turns, rest = divmod(row - stretch.begin, len(stretch.table))
        return stretch.taken + turns * stretch.turn + np.bincount(stretch.table[:rest], minlength=len(stretch.turn))


@dataclass(frozen=True)
class Quota:
    """What is due to one set after n rows: piecewise linear in n, in units of which `row` make a row. Exact integers.

    begins, totals, slopes: one each for every stage; `slack`: the part of a row by which a copy may come early or late.
    """

    begins: list[int]
    totals: list[int]  # due at `begins`
    slopes: list[int]  # due with each further row
    row: int
    slack: int

    def first(self, copy: int) -> float:
        """The first row, counted from 1, that may be copy number `copy`; inf: none."""
        return self._reached(copy * self.row + self.row - self.slack)

    def last(self, copy: int) -> float:
        """The last row that may be copy number `copy`; inf: it is never urgent."""
        return self._reached(copy * self.row + self.slack + 1)

    def _reached(self, value: int) -> float:
        """The least n after which at least `value`, above 0, is due."""
        stage = bisect_left(self.totals, value) - 1
        slope = self.slopes[stage]
        return self.begins[stage] - (self.totals[stage] - value) // slope if slope else math.inf


def _quotas(weights: Sequence[tuple[int, ...]], ends: Sequence[int]) -> list[Quota]:
    """The quota of each set. Its slack, 1 - 1 / (2 sets - 2) of a row, is the least that suffices for all weights."""
    sets = len(weights[0])
    parts = max(2, 2 * sets - 2)
    row = parts * math.lcm(*map(sum, weights))
    slopes = [[weight * (row // sum(stage)) for weight in stage] for stage in weights]
    lengths = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    quotas = []
    for own in zip(*slopes, strict=True):
        gains = (slope * length for slope, length in zip(own, lengths, strict=False))
        quotas.append(Quota([0, *ends], list(accumulate(gains, initial=0)), list(own), row, row - row // parts))
    return quotas


def _assign(quotas: Sequence[Quota], taken: list[int], begin: int, end: int) -> list[int]:
    """The sets of the rows [begin, end), the most urgent first; `taken`, the rows of each set so far, is advanced."""
    waiting = [(quota.first(copy), number) for number, (quota, copy) in enumerate(zip(quotas, taken, strict=True))]
    heapq.heapify(waiting)
    ready: list[tuple[float, int]] = []
    table = []
    for row in range(begin + 1, end + 1):
        while waiting and waiting[0][0] <= row:
            number = heapq.heappop(waiting)[1]
            heapq.heappush(ready, (quotas[number].last(taken[number]), number))
        number = heapq.heappop(ready)[1]
        table.append(number)
        taken[number] += 1
        heapq.heappush(waiting, (quotas[number].first(taken[number]), number))
    return table
