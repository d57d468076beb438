"""The run's timetable: which step has which rows, as closed forms, so that a resume needs one integer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ingot.errors import UserError
from ingot.recipe import Duration, Stage


@dataclass(frozen=True)
class Timetable:
    """`steps` steps in `stages`. A block is a slice of the data as long as the context; each step takes whole ones."""

    steps: int
    stages: tuple[Stage, ...]
    block: int

    @property
    def ends(self) -> list[int]:
        """For each stage, the number of steps done when it is over."""
        shares = accumulate(stage.share for stage in self.stages)
        return [*(round(share * self.steps) for share in list(shares)[:-1]), self.steps]

    def stage(self, step: int) -> Stage:
        """The stage in which the step after `step` done ones lies."""
        return next(stage for stage, end in zip(self.stages, self.ends, strict=True) if step < end)

    def blocks(self, step: int) -> int:
        """Blocks that the first `step` steps take."""
        total, begin = 0, 0
        for stage, end in zip(self.stages, self.ends, strict=True):
            total += max(0, min(step, end) - begin) * (stage.batch_tokens // self.block)
            begin = end
        return total


def mean_batch_tokens(stages: Sequence[Stage]) -> float:
    """Tokens in a step, on average over the run."""
    return sum(stage.share * stage.batch_tokens for stage in stages)


def steps_for(duration: Duration, stages: Sequence[Stage], *, epoch_tokens: int, parameters: int) -> int:
    """The steps that `duration` comes to, at least one. Minutes need a measured speed: see `steps_for_minutes`."""
    if duration.unit == "step":
        steps = duration.amount
    else:
        unit_tokens = {"token": 1, "epoch": epoch_tokens, "token per parameter": parameters}
        if duration.unit not in unit_tokens:
            raise UserError(f"a duration in {duration.unit}s needs a measured speed", where="train.duration")
        steps = duration.amount * unit_tokens[duration.unit] / mean_batch_tokens(stages)
    return max(round(steps), len(stages))


def steps_for_minutes(minutes: float, stages: Sequence[Stage], seconds: Sequence[float]) -> int:
    """The steps that fit into `minutes` when a step of stage i takes `seconds[i]`."""
    mean = sum(stage.share * second for stage, second in zip(stages, seconds, strict=True))
    return max(round(minutes * 60 / mean), len(stages))
