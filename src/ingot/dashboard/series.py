"""Series of numbers over training, kept in a memory that does not grow with the run: buckets with their extremes."""

from __future__ import annotations

import contextlib
import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_PLAIN = {float, int, type(None)}
BUCKETS = 2_048  # of one course, at most; never fewer than half of it once there were so many records


def number(value: Any) -> float:
    """`value` as a float; NaN for whatever is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def column(values: Sequence[Any]) -> Array:
    """Values as numbers; NaN for whatever is none."""
    if set(map(type, values)) <= _PLAIN:
        with contextlib.suppress(OverflowError):
            return np.array(values, dtype=np.float64)
    return np.array([number(value) for value in values], dtype=np.float64)


def rows(records: Sequence[dict[str, Any]], keys: Sequence[str]) -> Array:
    """`keys` of `records`, in order: (keys, records); at once where every record has them all."""
    try:
        flat = list(itertools.chain.from_iterable(map(operator.itemgetter(*keys), records)))
    except KeyError:
        return np.stack([column([record.get(key) for record in records]) for key in keys])
    return column(flat).reshape(len(records), len(keys)).T


def columns(records: Iterable[dict[str, Any]], keys: Sequence[str]) -> dict[str, Array]:
    """`keys` of `records` as columns, ascending by step; of two records of one step the later counts."""
    latest = {step: record for record in records if math.isfinite(step := number(record.get("step")))}
    ordered = [latest[step] for step in sorted(latest)]
    return dict(zip(keys, rows(ordered, keys), strict=True))


@dataclass(frozen=True)
class Buckets:
    """Neighbouring records taken together: of each key the mean, the least and the most; of where they lie, the last.

    `axes` (axes, buckets); `sums`, `finite`, `low`, `high` (keys, buckets); `counts` (buckets,) of records.
    """

    counts: NDArray[np.int64]
    axes: Array
    sums: Array
    finite: NDArray[np.int64]
    low: Array
    high: Array

    @classmethod
    def of(cls, axes: Array, values: Array) -> Buckets:
        """Each record a bucket of its own."""
        known = np.isfinite(values)
        low, high = np.where(known, values, np.inf), np.where(known, values, -np.inf)
        counts = np.ones(values.shape[1], np.int64)
        return cls(counts, axes, np.where(known, values, 0.0), known.astype(np.int64), low, high)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def means(self) -> Array:
        """(keys, buckets); NaN where no value is a number."""
        return np.divide(self.sums, self.finite, out=np.full(self.sums.shape, np.nan), where=self.finite > 0)

    def joined(self, starts: NDArray[np.int64]) -> Buckets:
        """Buckets taken together: each new one begins at one of `starts`, which ascend from 0."""
        ends = np.append(starts[1:], len(self)) - 1
        return Buckets(
            np.add.reduceat(self.counts, starts),
            self.axes[:, ends],
            np.add.reduceat(self.sums, starts, axis=1),
            np.add.reduceat(self.finite, starts, axis=1),
            np.minimum.reduceat(self.low, starts, axis=1),
            np.maximum.reduceat(self.high, starts, axis=1),
        )

    def thinned(self, points: int) -> Buckets:
        """At most `points` buckets, each of as many as the others."""
        if len(self) <= points:
            return self
        return self.joined(np.arange(0, len(self), -(-len(self) // points)))

    def followed_by(self, other: Buckets) -> Buckets:
        """These buckets, and then those."""
        return Buckets(
            *(np.concatenate([mine, theirs], axis=-1) for mine, theirs in zip(self._parts, other._parts, strict=True))
        )

    @property
    def _parts(self) -> tuple[Any, ...]:
        return self.counts, self.axes, self.sums, self.finite, self.low, self.high


class Course:
    """The records of a run over its steps, as many as they may be, in at most `BUCKETS` buckets."""

    def __init__(self, axes: Sequence[str], keys: Sequence[str]):
        """`axes`: where a record lies, the first of them being its step; `keys`: what it says."""
        self.axes, self.keys = tuple(axes), tuple(keys)
        self.buckets = Buckets.of(np.empty((len(axes), 0)), np.empty((len(keys), 0)))
        self._width = 1  # records of a full bucket

    @property
    def last_step(self) -> float:
        """The step reached; minus infinity before the first."""
        return float(self.buckets.axes[0, -1]) if len(self.buckets) else -math.inf

    def add(self, axes: Array, values: Array) -> None:
        """Records that follow: (axes, records) and (keys, records); those not behind the step reached are left out."""
        reached = np.maximum.accumulate(np.concatenate([[self.last_step], axes[0]]))[:-1]
        ahead = axes[0] > reached
        new = Buckets.of(axes[:, ahead], values[:, ahead])
        if not len(new):
            return
        every = self.buckets.followed_by(new)
        old = len(self.buckets)
        begun = int(self.buckets.counts[-1]) % self._width if old else 0  # records in a last bucket that is not full
        groups = (begun + np.arange(len(new))) // self._width
        first = np.flatnonzero(np.diff(groups, prepend=0 if begun else -1)) + old
        self.buckets = every.joined(np.concatenate([np.arange(old), first]))
        while len(self.buckets) > BUCKETS:
            self._width *= 2
            self.buckets = self.buckets.joined(np.arange(0, len(self.buckets), 2))

    def of(self, buckets: Buckets, key: str) -> tuple[Array, Array, Array]:
        """Mean, least and most of `key` in some buckets of this course; NaN where it is no number."""
        place = self.keys.index(key)
        known = buckets.finite[place] > 0
        low, high = (np.where(known, part[place], np.nan) for part in (buckets.low, buckets.high))
        return buckets.means[place], low, high


def spread(count: int, most: int) -> list[int]:
    """At most `most` places out of `count`, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, most)})
