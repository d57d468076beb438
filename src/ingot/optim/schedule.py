"""Schedules: the learning rate, as a share of its peak, as a pure function of how much of the run is done."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from ingot.config.config import Choice
from ingot.errors import UserError

_STEPS = re.compile(r"(\d+)\s+steps?")


def _checked(extent: float | str) -> float | str:
    if isinstance(extent, str) and not _STEPS.fullmatch(extent):
        raise ValueError(f"{extent!r} is no part of a run; write a share such as 0.01, or '200 steps'")
    if not isinstance(extent, str) and not 0 <= extent <= 1:
        raise ValueError(f"a share of the run lies between 0 and 1, unlike {extent:g}; write steps as '200 steps'")
    return extent


Extent = Annotated[float | str, AfterValidator(_checked)]  # a part of a run: a share of it, or `200 steps`


def share(extent: float | str, steps: int) -> float:
    """Which part of a run of `steps` steps `extent` is: above 1 where it is longer than the run."""
    match = _STEPS.fullmatch(extent) if isinstance(extent, str) else None
    return int(match[1]) / steps if match else float(extent)


class Schedule(Choice):
    """How the rate changes over the run."""

    rise: Extent = 0.01
    """over which the rate rises from 0 to its peak in a straight line: a share of the run, or '200 steps'"""

    def factor(self, done: float, steps: int) -> float:
        """The rate as a share of its peak, when `done` (0 to 1) of a run of `steps` steps is done."""
        if not 0 <= done <= 1:
            raise ValueError(f"progress lies between 0 and 1, not at {done}")
        rise = share(self.rise, steps)
        return done / rise if done < rise else self.after_rise(done, steps)

    @abstractmethod
    def after_rise(self, done: float, steps: int) -> float:
        """The factor from the end of the rise on; 1 where the rise ends."""

    def check(self, steps: int) -> None:
        """Raises UserError where a run of `steps` steps is too short for what is given in steps."""
        if share(self.rise, steps) > 1:
            what = f"a rise of {self.rise} never reaches the peak in a run of {steps:,}"
            raise UserError(what, where="schedule.rise", mend="shorten it, or give a share of the run such as 0.01")


class Cosine(Schedule, name="cosine"):
    """Rise, then half a cosine down to the floor (Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts)."""

    floor: float = Field(default=0.1, ge=0, le=1)
    """share of the peak left at the end"""

    def after_rise(self, done: float, steps: int) -> float:
        """Half a cosine from 1 to `floor`."""
        return _half_cosine(_passed(share(self.rise, steps), done), self.floor)


class Restarts(Schedule, name="restarts"):
    """Rise, then half a cosine to the floor again and again, each from the peak (SGDR, arXiv:1608.03983)."""

    cycles: int = Field(default=4, ge=1)
    """half cosines after the rise; the last one ends with the run"""
    lengthen: float = Field(default=1.0, ge=1)
    """how many times as long as the one before each cycle is (T_mult in the paper)"""
    floor: float = Field(default=0.0, ge=0, le=1)
    """share of the peak left at the end of each cycle"""

    def after_rise(self, done: float, steps: int) -> float:
        """Half a cosine from 1 to `floor` within the cycle that `done` lies in."""
        lengths = [self.lengthen**cycle for cycle in range(self.cycles)]
        left = _passed(share(self.rise, steps), done) * sum(lengths)
        for length in lengths[:-1]:
            if left < length:
                return _half_cosine(left / length, self.floor)
            left -= length
        return _half_cosine(min(1.0, left / lengths[-1]), self.floor)


class WarmupStableDecay(Schedule, name="wsd"):
    """Rise, plateau, fall in a straight line (Hu et al., 2024, arXiv:2404.06395, with a linear fall)."""

    fall: Extent = 0.2
    """over which the rate falls to the floor, at the end: a share of the run, or '2000 steps'"""
    floor: float = Field(default=0.0, ge=0, le=1)
    """share of the peak left at the end"""

    @model_validator(mode="after")
    def _rise_and_fall_fit(self) -> Self:
        if isinstance(self.rise, float) and isinstance(self.fall, float) and self.rise + self.fall > 1:
            raise ValueError(f"rise {self.rise:g} and fall {self.fall:g} overlap; their sum is at most 1")
        return self

    def after_rise(self, done: float, steps: int) -> float:
        """1, then a straight line to `floor`."""
        return 1 - (1 - self.floor) * _passed(1 - share(self.fall, steps), done)

    def check(self, steps: int) -> None:
        """Raises UserError where rise and fall overlap in a run of `steps` steps."""
        super().check(steps)
        if share(self.rise, steps) + share(self.fall, steps) > 1 + 1e-9:
            what = f"rise ({self.rise}) and fall ({self.fall}) overlap in a run of {steps:,} steps"
            raise UserError(what, where="schedule", mend="shorten one, or give both as shares of the run")


class Linear(Schedule, name="linear"):
    """Rise, then a straight line down to the floor."""

    floor: float = Field(default=0.0, ge=0, le=1)
    """share of the peak left at the end"""

    def after_rise(self, done: float, steps: int) -> float:
        """A straight line from 1 to `floor`."""
        return 1 - (1 - self.floor) * _passed(share(self.rise, steps), done)


class Constant(Schedule, name="constant"):
    """Rise, then the peak to the end."""

    def after_rise(self, done: float, steps: int) -> float:
        """1."""
        return 1.0


def _half_cosine(passed: float, floor: float) -> float:
    """From 1 to `floor` while `passed` goes from 0 to 1."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * passed)) / 2


def _passed(begin: float, at: float) -> float:
    """How far `at` lies between `begin` and the end of the run: 0 before, 1 there."""
    return min(1.0, max(0.0, (at - begin) / (1.0 - begin))) if begin < 1.0 else float(at > begin)
