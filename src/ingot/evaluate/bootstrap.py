"""How sure a figure is: the interval in which it would lie for other samples of the same kind.

Percentile bootstrap (Efron, 1979); shares of right answers have Wilson's interval.

D units, such as documents or items; K groups of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ingot.evaluate.record import Measure

LEVEL, SAMPLES, SEED = 0.95, 1_000, 1
MOST = 4_096  # units that are drawn one by one; of more, every so many are drawn together


def ratio(top: NDArray[np.float64], bottom: NDArray[np.float64], finish: Callable[[float], float] = float) -> Measure:
    """finish(sum of `top` / sum of `bottom`) over units (D,), with its 95% percentile interval over resampled units.

    `finish` must not fall. Without a unit, or with nothing in `bottom`, there is no figure; one unit has no interval.
    """
    if not len(top) or not bottom.sum():
        return Measure()
    value = _finite(finish(float(top.sum() / bottom.sum())))
    if len(top) < 2:
        return Measure(value=value)
    groups = np.arange(len(top)) % MOST
    sums = np.stack([np.bincount(groups, part) for part in (top, bottom)], 1)  # (K, 2)
    drawn = np.random.default_rng(SEED).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), SAMPLES) @ sums
    ratios = drawn[:, 0] / np.where(drawn[:, 1], drawn[:, 1], np.nan)
    low, high = np.nanquantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measure(value=value, low=_finite(finish(float(low))), high=_finite(finish(float(high))))


def mean(values: NDArray[np.float64], finish: Callable[[float], float] = float) -> Measure:
    """The mean of units (D,), as `ratio` gives it."""
    return ratio(values, np.ones(len(values)), finish)


def share(right: NDArray[np.bool_]) -> Measure:
    """The share of units (D,) that are right, with Wilson's 95% interval (1927).

    Where all or none are right, a bootstrap would call that certain.
    """
    if not len(right):
        return Measure()
    count, value = len(right), float(np.mean(right))
    z = 1.959964  # of a normal distribution, 95% lie within as many standard deviations
    middle, scale = value + z**2 / (2 * count), 1 + z**2 / count
    half = z * math.sqrt(value * (1 - value) / count + (z / (2 * count)) ** 2)
    low, high = (middle - half) / scale, (middle + half) / scale
    return Measure(value=value, low=min(value, max(0.0, low)), high=max(value, min(1.0, high)))


def exponential(value: float) -> float:
    """exp(value), infinite where a float can't hold it."""
    return math.exp(value) if value < 709 else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
