"""When a run is looked at: as the recipe says, but in a short run not so often that looking takes over."""

from __future__ import annotations

from dataclasses import dataclass

from ingot.estimate.time import step_flops
from ingot.model.architecture import Architecture, forward_flops
from ingot.recipe.recipe import Recipe
from ingot.rhythm import Every

MEASURING = 0.25  # of the training's FLOPs that may go into evaluations whose rhythm is a share of the run
BETWEEN_SAMPLES = 10  # steps, where their rhythm is one: writing them takes a small model about two steps


@dataclass(frozen=True)
class Looks:
    """When a run is measured on held-out text, writes samples, and is scored on tasks.

    It follows from the recipe, the text and the number of steps alone, so a run that goes on keeps it.
    """

    evaluation: Every
    samples: Every
    tasks: Every

    @classmethod
    def of(cls, recipe: Recipe, arch: Architecture, steps: int, held_out: float) -> Looks:
        """For a run of `steps` steps with so many `held_out` tokens."""
        measured = min(recipe.evaluation.max_tokens, held_out) * forward_flops(arch, (arch.context + 1) / 2)
        between = measured / (MEASURING * step_flops(recipe, arch))
        return cls(
            evaluation=Every.parse(recipe.evaluation.every).spaced(steps, between),
            samples=Every.parse(recipe.samples.every).spaced(steps, BETWEEN_SAMPLES),
            tasks=Every.parse(recipe.evaluation.tasks_every),
        )
