"""A power law through losses and sizes: fitted, with its uncertainty, and not believed far from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingot.errors import UserError

Array = NDArray[np.float64]

LEAST = 3  # sizes, below which nothing is said of others
FOR_A_FLOOR = 4  # sizes, from which on a loss that no size gets below can be told apart
EXPONENTS = np.linspace(0.005, 2.0, 400)  # that are tried
DRAWS = 400  # of the parametric bootstrap, whose noise is Student's t by the residuals
BETWEEN = (5, 95)  # percentiles of the interval
FURTHER = (2.0, 10.0)  # times the largest size, at which a loss is expected
LINE = "Kaplan et al. 2020, arXiv:2001.08361, equation 1.1: L = A / N^a"
FLOORED = "Hoffmann et al. 2022, arXiv:2203.15556, equation 2, in N alone: L = E + A / N^a"


@dataclass(frozen=True)
class Law:
    """L(N) = floor + scale / N^exponent, in nats a token, and other fits, as likely as the residuals allow."""

    floor: float
    scale: float
    exponent: float
    others: Array
    """(draws, 3): floor, scale and exponent of each"""
    source: str
    sizes: tuple[float, ...]

    def at(self, size: float) -> tuple[float, float, float]:
        """The loss expected at `size` parameters, and the ends of its 90% interval."""
        drawn = self.others[:, 0] + self.others[:, 1] * size ** -self.others[:, 2]
        low, high = np.percentile(drawn, BETWEEN)
        return self.floor + self.scale * size**-self.exponent, float(low), float(high)

    def between(self, place: int) -> tuple[float, float]:
        """The 90% interval of the floor (0), the scale (1) or the exponent (2)."""
        low, high = np.percentile(self.others[:, place], BETWEEN)
        return float(low), float(high)

    @property
    def text(self) -> str:
        """The law in one line."""
        low, high = self.between(2)
        exponent = f"a = {self.exponent:.3f} ({low:.3f} to {high:.3f})"
        if self.source == LINE:
            return f"L = {self.scale:.4g} / N^a, {exponent}; N: parameters; 90% intervals by the residuals"
        low, high = self.between(0)
        floor = f"E = {self.floor:.3f} ({low:.3f} to {high:.3f})"
        return f"L = E + {self.scale:.4g} / N^a, {floor}, {exponent}; N: parameters; 90% intervals by the residuals"

    def curve(self, points: int = 60) -> list[list[float]]:
        """Rows of size, loss and the ends of its interval, from the smallest size to the furthest that is told of."""
        sizes = np.geomspace(min(self.sizes), max(self.sizes) * FURTHER[-1], points)
        return [[float(size), *self.at(float(size))] for size in sizes]


def fit(sizes: Sequence[float], losses: Sequence[float], *, seed: int = 0) -> Law:
    """The law through losses (nats a token) at sizes (parameters); several losses of one size all count.

    Least squares of relative errors. Through 3 sizes a line on log-log paper; from 4 on with a floor. Raises UserError
    for fewer, from which nothing follows for others, and for values that are not positive.
    """
    n, loss = np.asarray(sizes, float), np.asarray(losses, float)
    if not (np.isfinite(n).all() and np.isfinite(loss).all() and (n > 0).all() and (loss > 0).all()):
        raise UserError("sizes and losses have to be positive numbers", where="sweep", mend="leave out failed runs")
    different = len(set(n.tolist()))
    if different < LEAST:
        what = f"{different} {'size says' if different == 1 else 'sizes say'} nothing about others"
        raise UserError(what, where="sweep", mend=f"give {LEAST} sizes or more")
    floored = different >= FOR_A_FLOOR
    floor, scale, exponent = (part[0] for part in _solve(n, loss[None], floored))
    expected = floor + scale * n**-exponent
    free = len(n) - (3 if floored else 2)
    noise = math.sqrt(float(((loss / expected - 1) ** 2).sum()) / max(1, free))
    draw = np.random.default_rng(seed)
    unsure = np.sqrt(max(1, free) / draw.chisquare(max(1, free), (DRAWS, 1)))  # the noise itself is not known
    draws = noise * unsure * draw.standard_normal((DRAWS, len(n)))
    others = np.stack(_solve(n, np.maximum(expected * (1 + draws), 1e-9), floored), axis=1)
    return Law(float(floor), float(scale), float(exponent), others, FLOORED if floored else LINE, tuple(n.tolist()))


def _solve(n: Array, losses: Array, floored: bool) -> tuple[Array, Array, Array]:
    """Floor, scale and exponent for each row of losses (rows, sizes): the exponent by trial, the others exactly."""
    if not floored:
        x = np.log(n) - np.log(n).mean()
        y = np.log(losses)
        exponent = -(y @ x) / (x @ x)
        return np.zeros(len(losses)), np.exp(y.mean(axis=1) + exponent * np.log(n).mean()), exponent
    grid, middle = EXPONENTS, float(np.exp(np.log(n).mean()))
    for _ in range(3):  # each time more finely around the best so far
        floor, scale, error = _linear(n / middle, losses, grid)
        best = error.argmin(axis=1)
        rows = np.arange(len(losses))
        exponent = np.take_along_axis(np.broadcast_to(grid, error.shape), best[:, None], axis=1)[:, 0]
        found = floor[rows, best], scale[rows, best] * middle**exponent, exponent
        width = (EXPONENTS[1] - EXPONENTS[0]) if grid.ndim == 1 else (grid[0, 1] - grid[0, 0])
        grid = np.maximum(exponent[:, None] + np.linspace(-width, width, 41), 1e-4)
    return found


def _linear(x: Array, losses: Array, grid: Array) -> tuple[Array, Array, Array]:
    """For each exponent of the grid the best floor and scale, neither below 0, and the error: (rows, exponents)."""
    power = x ** -np.atleast_2d(grid)[:, :, None]  # (rows or 1, exponents, sizes)
    w = 1 / losses**2  # relative errors count
    w = w[:, None, :]
    y = losses[:, None, :]
    s0, s1, s2 = w.sum(-1), (w * power).sum(-1), (w * power**2).sum(-1)
    t0, t1 = (w * y).sum(-1), (w * power * y).sum(-1)
    determinant = np.maximum(s0 * s2 - s1**2, 1e-30)
    floor, scale = (s2 * t0 - s1 * t1) / determinant, (s0 * t1 - s1 * t0) / determinant
    alone = floor < 0
    floor, scale = np.where(alone, 0.0, floor), np.where(alone, t1 / s2, scale)
    flat = scale < 0
    floor, scale = np.where(flat, t0 / s0, floor), np.where(flat, 0.0, scale)
    error = (w * (floor[:, :, None] + scale[:, :, None] * power - y) ** 2).sum(-1)
    return floor, scale, error
