"""Series of numbers over training: in order, smoothed, and thinned to what a screen can show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ingot.dashboard.run import Record, number

Array = NDArray[np.float64]


def columns(records: Iterable[Record], keys: Sequence[str]) -> dict[str, Array]:
    """`keys` of `records` as columns, ascending by step; of two records of one step the later counts."""
    latest = {step: record for record in records if math.isfinite(step := number(record.get("step")))}
    ordered = [latest[step] for step in sorted(latest)]
    return {key: np.array([number(record.get(key)) for record in ordered], dtype=np.float64) for key in keys}


def smooth(values: Array, reach: int) -> Array:
    """The mean of the finite values within `reach` places on either side.

    At the beginning, where a loss falls steeply, the window stays symmetric by being narrow, so that it does not lag.
    """
    places = np.arange(len(values))
    sides = np.minimum(reach, places)
    low, high = places - sides, np.minimum(places + sides + 1, len(values))
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    number_of = counts[high] - counts[low]
    return np.divide(sums[high] - sums[low], number_of, out=np.full(len(values), np.nan), where=number_of > 0)


def thin(values: Array, points: int) -> NDArray[np.int64]:
    """Ascending places of at most `points` (at least 5) of `values` that draw the same picture.

    The first, the last, and of each bucket the lowest, the highest and a value that is not finite, where there is one.
    """
    if len(values) <= points:
        return np.arange(len(values))
    finite = np.isfinite(values)
    low, high = np.where(finite, values, np.inf), np.where(finite, values, -np.inf)
    keep = {0, len(values) - 1}
    for begin, end in pairwise(np.linspace(0, len(values), (points - 2) // 3 + 1).astype(int)):
        inside = slice(begin, end)
        keep |= {begin + low[inside].argmin(), begin + high[inside].argmax(), begin + finite[inside].argmin()}
    return np.array(sorted(int(place) for place in keep), dtype=np.int64)


def spread(count: int, most: int) -> list[int]:
    """At most `most` places out of `count`, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, most)})
