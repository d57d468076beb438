"""The run's timetable: how many steps there are, and which rows each of them has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ingot.recipe.recipe import Recipe
from ingot.recipe.sections import Stage
from ingot.rhythm import Duration

FEW_STEPS = 100  # the demo's loss still falls steeply there: 1.6 bits per byte after 53, 1.37 after 213 (a wider model)


@dataclass(frozen=True)
class Timetable:
    """`steps` steps in `stages`, whose shares add up to 1."""

    steps: int
    stages: tuple[Stage, ...]

    @classmethod
    def one_step_each(cls, stages: Sequence[Stage]) -> Timetable:
        """For a look at the first rows of each stage, of which the shapes alone count."""
        return cls(len(stages), tuple(stages))

    @property
    def ends(self) -> list[int]:
        """The number of steps done when each stage ends."""
        return [round(share * self.steps) for share in accumulate(stage.share for stage in self.stages)]

    def stage(self, step: int) -> Stage:
        """The stage in which the step after `step` done ones lies."""
        ends = zip(self.stages, self.ends, strict=True)
        return next((stage for stage, end in ends if step < end), self.stages[-1])

    def blocks(self, length: int) -> list[int]:
        """The number of blocks of `length` tokens that are used up when each stage ends."""
        stages = zip(self.stages, [0, *self.ends], self.ends, strict=False)
        return list(accumulate((end - begin) * (stage.batch_tokens // length) for stage, begin, end in stages))


def mean_batch_tokens(stages: Sequence[Stage]) -> float:
    """Tokens in a step, on average over the run."""
    return sum(stage.share * stage.batch_tokens for stage in stages)


def steps_for(duration: Duration, stages: Sequence[Stage], *, epoch_tokens: int, parameters: int) -> int | None:
    """The steps that `duration` comes to, at least one a stage; None for minutes, which need a measured speed."""
    tokens = {"token": 1, "epoch": epoch_tokens, "token per parameter": parameters}
    if duration.unit == "minute":
        return None
    steps = duration.amount
    if duration.unit != "step":
        steps *= tokens[duration.unit] / mean_batch_tokens(stages)
    return max(round(steps), len(stages))


def steps_for_minutes(minutes: float, stages: Sequence[Stage], seconds: Sequence[float]) -> int:
    """The steps that fit into `minutes` when a step of stage i takes `seconds[i]`; at least one a stage."""
    mean = sum(stage.share * second for stage, second in zip(stages, seconds, strict=True))
    return max(round(minutes * 60 / mean), len(stages))


def too_few(recipe: Recipe, steps: int) -> str:
    """Where the duration, given otherwise than in steps, comes to so few that the model learns little: what helps."""
    if steps >= FEW_STEPS or Duration.parse(recipe.train.duration).unit == "step":
        return ""
    return (
        f"{steps:,} steps teach little; more come of a smaller model (model.hidden_size, model.layers), "
        "smaller batches (train.batch_tokens) or a longer train.duration"
    )
