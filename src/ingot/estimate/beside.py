"""What a run takes beside its steps: to start, to compile, to look at what it has learned, and to save."""

from __future__ import annotations

from ingot.estimate.devices import Device
from ingot.estimate.text import Text
from ingot.estimate.time import OF_DATA_SHEET, OF_MEASURED
from ingot.model.architecture import Architecture, forward_flops
from ingot.model.memory import Precision
from ingot.recipe import Recipe
from ingot.rhythm import Every

# Orders of magnitude, seen on calm machines (docs/lab-log.md): seconds until the first step is made and to compile,
# bytes a second of a checkpoint that is written and digested, seconds of a token that is sampled.
START = {"cpu": 5.0, "cuda": 15.0}
COMPILING, LONG_ENOUGH = 45.0, 120.0  # and the seconds of training from which compilation is worth it
SAVING, SAMPLED = 3e8, 0.01


def beside(
    recipe: Recipe,
    arch: Architecture,
    device: Device,
    precision: Precision,
    *,
    steps: int,
    seconds: float,
    text: Text,
    checkpoint: float,
) -> dict[str, float]:
    """Seconds beside those of training, by what takes them, for a run of `steps` steps in so many `seconds`."""
    compiled = recipe.train.compile == "yes" or (recipe.train.compile == "auto" and seconds > LONG_ENOUGH)
    epochs = recipe.train.batch_tokens * steps / text.train if text.train else 0.0
    looks, saves = (_times(every, steps, epochs) for every in (recipe.evaluation.every, recipe.train.save_every))
    scored = looks * min(recipe.evaluation.max_tokens, text.held_out or 0.0) + (text.held_out or 0.0)
    sustained = device.peaks[precision] * (OF_MEASURED if device.measured else OF_DATA_SHEET)
    written = _times(recipe.samples.every, steps, epochs) * len(recipe.samples.prompts) * recipe.samples.max_new_tokens
    return {
        "start": START[device.kind],
        "compilation": COMPILING if compiled else 0.0,
        "evaluation": scored * forward_flops(arch, arch.context / 2, arch.vocabulary) / sustained,
        "saves": (max(looks, saves) + 1) * checkpoint / SAVING,
        "samples": written * SAMPLED,
    }


def _times(rhythm: str, steps: int, epochs: float) -> float:
    """How often something falls due in a run."""
    every = Every.parse(rhythm)
    if every.steps:
        return steps // every.steps
    if every.epochs:
        return epochs // every.epochs
    return float(1 // every.share) if every.share else 0.0
