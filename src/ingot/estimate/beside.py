"""What a run takes beside its steps: to start, to compile, to look at what it has learned, and to save."""

from __future__ import annotations

from ingot.estimate.looks import Looks
from ingot.estimate.text import Text
from ingot.estimate.time import COMPILING
from ingot.model.architecture import Architecture, forward_flops
from ingot.model.memory import DeviceKind
from ingot.recipe.recipe import Recipe
from ingot.rhythm import Every

# Orders of magnitude, seen on calm machines (docs/lab-log.md): seconds until the first step is made, bytes a second of
# a checkpoint that is written and digested, seconds of a token that is sampled.
START = {"cpu": 5.0, "cuda": 15.0}
SAVING, SAMPLED = 3e8, 0.01


def beside(
    recipe: Recipe,
    arch: Architecture,
    kind: DeviceKind,
    *,
    sustained: float,
    steps: int,
    compiled: bool,
    text: Text,
    checkpoint: float,
) -> dict[str, float]:
    """Seconds beside those of training, by what takes them, for a run of `steps` steps at `sustained` FLOP/s."""
    epochs = recipe.train.batch_tokens * steps / text.train if text.train else 0.0
    planned = Looks.of(recipe, arch, steps, text.held_out or 0.0)
    looks = _times(planned.evaluation, steps, epochs)
    saves = _times(Every.parse(recipe.train.save_every), steps, epochs)
    scored = looks * min(recipe.evaluation.max_tokens, text.held_out or 0.0) + (text.held_out or 0.0)
    written = _times(planned.samples, steps, epochs) * len(recipe.samples.prompts) * recipe.samples.max_new_tokens
    return {
        "start": START[kind],
        "compilation": COMPILING if compiled else 0.0,
        "evaluation": scored * forward_flops(arch, arch.context / 2, arch.vocabulary) / sustained,
        "saves": (max(looks, saves) + 1) * checkpoint / SAVING,
        "samples": written * SAMPLED,
    }


def _times(every: Every, steps: int, epochs: float) -> float:
    """How often something falls due in a run."""
    if every.steps:
        return steps // every.steps
    if every.epochs:
        return epochs // every.epochs
    return float(1 // every.share) if every.share else 0.0
