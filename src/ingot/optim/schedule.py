"""Schedules: the learning rate, as a share of its peak, as a pure function of how much of the run is done."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Self

from pydantic import Field, model_validator

from ingot.config import Choice


class Schedule(Choice):
    """How the rate changes over the run."""

    rise: float = Field(default=0.01, ge=0, le=1)
    """share of the run over which the rate rises from 0 to its peak in a straight line"""

    def factor(self, done: float) -> float:
        """The rate as a share of its peak, when `done` (0 to 1) of the run is done."""
        if not 0 <= done <= 1:
            raise ValueError(f"progress lies between 0 and 1, not at {done}")
        return done / self.rise if done < self.rise else self.after_rise(done)

    @abstractmethod
    def after_rise(self, done: float) -> float:
        """The factor from the end of the rise on; 1 where the rise ends."""


class Cosine(Schedule, name="cosine"):
    """Rise, then half a cosine down to the floor (Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts)."""

    floor: float = Field(default=0.1, ge=0, le=1)
    """share of the peak left at the end"""

    def after_rise(self, done: float) -> float:
        """Half a cosine from 1 to `floor`."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * _share(self.rise, 1.0, done))) / 2


class WarmupStableDecay(Schedule, name="wsd"):
    """Rise, plateau, fall in a straight line (Hu et al., 2024, arXiv:2404.06395, with a linear fall)."""

    fall: float = Field(default=0.2, ge=0, le=1)
    """share of the run over which the rate falls to the floor, at the end"""
    floor: float = Field(default=0.0, ge=0, le=1)
    """share of the peak left at the end"""

    @model_validator(mode="after")
    def _rise_and_fall_fit(self) -> Self:
        if self.rise + self.fall > 1:
            raise ValueError(f"rise {self.rise:g} and fall {self.fall:g} overlap; their sum is at most 1")
        return self

    def after_rise(self, done: float) -> float:
        """1, then a straight line to `floor`."""
        return 1 - (1 - self.floor) * _share(1 - self.fall, 1.0, done)


class Linear(Schedule, name="linear"):
    """Rise, then a straight line down to the floor."""

    floor: float = Field(default=0.0, ge=0, le=1)
    """share of the peak left at the end"""

    def after_rise(self, done: float) -> float:
        """A straight line from 1 to `floor`."""
        return 1 - (1 - self.floor) * _share(self.rise, 1.0, done)


class Constant(Schedule, name="constant"):
    """Rise, then the peak to the end."""

    def after_rise(self, done: float) -> float:
        """1."""
        return 1.0


def _share(begin: float, end: float, at: float) -> float:
    """How far `at` lies between `begin` and `end`: 0 before, 1 after."""
    return min(1.0, max(0.0, (at - begin) / (end - begin))) if end > begin else float(at > begin)
