"""How long and how often, in words that carry their unit: `5 minutes`, `20 tokens per parameter`, `10%`, `epoch`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, Self

_DURATION = re.compile(r"([\d_.]+)\s*([kMB]?)\s+(steps?|tokens?|epochs?|minutes?|tokens? per parameter)")
_SCALE = {"": 1, "k": 1_000, "M": 1_000_000, "B": 1_000_000_000}
_EVERY = re.compile(r"(\d+)\s+steps?|(\d+(?:\.\d+)?)\s*%|(?:(\d+)\s+)?(epochs?)|never")

LONGER = 4  # times the duration of a complete run are proposed to train on


@dataclass(frozen=True)
class Duration:
    """How long to train: an amount of one unit, as in `300 steps`, `10M tokens` or `20 tokens per parameter`."""

    amount: float
    unit: Literal["step", "token", "epoch", "minute", "token per parameter"]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `text`. Raises ValueError that shows the forms there are."""
        match = _DURATION.fullmatch(text.strip())
        if not match or not float(match[1]):
            raise ValueError(
                f"{text!r} is no duration; write one as '300 steps', '10M tokens', '2 epochs', '5 minutes' "
                "or '20 tokens per parameter'"
            )
        unit: Any = match[3].replace("tokens", "token").removesuffix("s")
        return cls(float(match[1]) * _SCALE[match[2]], unit)

    @classmethod
    def spelled(cls, value: Any) -> str:
        """`value` as it is written in a recipe, once `parse` has read it: a bare number is told the forms, too."""
        cls.parse(str(value))
        return str(value)

    def longer(self, seconds: float) -> Self:
        """What a run of this duration that took `seconds` may be given to learn a good deal more."""
        times = LONGER
        if self.unit == "minute":  # that it may have taken more of than it was given
            times = max(times, math.ceil(2 * seconds / 60 / self.amount))
        return replace(self, amount=self.amount * times)

    def __str__(self) -> str:
        """As `parse` reads it."""
        counted, *rest = self.unit.split()
        return " ".join([f"{self.amount:.15g} {counted}s", *rest])


@dataclass(frozen=True)
class Every:
    """When something recurs: after a number of steps, a share of the run, or a number of epochs; all zero: never."""

    steps: int = 0
    share: Fraction = Fraction(0)
    epochs: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `text`. Raises ValueError that shows the forms there are."""
        match = _EVERY.fullmatch(text.strip())
        if not match or "0" in (match[1], match[3]):
            raise ValueError(f"{text!r} is no rhythm; write it as '100 steps', '10%' (of the run), 'epoch' or 'never'")
        epochs = int(match[3] or 1) if match[4] else 0
        return cls(int(match[1] or 0), Fraction(match[2] or 0) / 100, epochs)

    @classmethod
    def spelled(cls, value: Any) -> str:
        """As `Duration.spelled`."""
        cls.parse(str(value))
        return str(value)

    def spaced(self, steps: int, least: float) -> Self:
        """The same; but a share of a run of `steps` steps that is less than `least` of them becomes a larger one.

        The run is then as many equal parts as have `least` steps, or one.
        """
        if not self.share or self.share * steps >= least:
            return self
        return replace(self, share=Fraction(1, max(1, int(steps / least))))

    def due(self, step: int, steps: int, epochs: tuple[int, int]) -> bool:
        """Whether it falls due right after `step` of `steps`; a share or an epoch does at the step that completes it.

        `epochs`: how many were over before that step, and after it.
        """
        if self.steps:
            return step % self.steps == 0
        if self.epochs:
            return epochs[1] // self.epochs > epochs[0] // self.epochs
        if not self.share:
            return False
        return step * Fraction(1, steps) // self.share > (step - 1) * Fraction(1, steps) // self.share


def in_words(seconds: float) -> str:
    """A time in the largest unit of which there are two, such as `83.2 seconds` or `5.1 minutes`."""
    for unit, scale in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:,.1f} {unit}"
    return f"{seconds:.3g} seconds"
