"""What was planned for a run, beside what it was: the model's size before it begins, time and memory when it ends."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ingot.checkpoint.store import Checkpoints
from ingot.data.build.report import size
from ingot.distributed import World
from ingot.engine.precision import choose_precision
from ingot.estimate.auto import choose, is_auto
from ingot.estimate.devices import Device
from ingot.estimate.here import this_device
from ingot.estimate.memory import RUNTIME, largest, works
from ingot.estimate.text import vocabulary_of
from ingot.estimate.time import run_seconds, step_seconds
from ingot.model.architecture import Architecture
from ingot.recipe import Recipe


def sized(recipe: Recipe, world: World, say: Callable[[str], None]) -> Recipe:
    """The recipe with the size of its model chosen for the devices of `world`, or as the run was begun with it.

    Asked on the main rank alone. Raises UserError where no size fits.
    """
    if not is_auto(recipe):
        return recipe
    path = recipe.folder / "recipe.yaml"
    if path.exists() and Checkpoints(recipe.folder).all():
        begun = Recipe.load(path)
        taken = recipe.model_copy(update={"model": begun.model, "optimizer": begun.optimizer})
        return taken.with_memory(checkpoint_every=begun.memory.checkpoint_every)
    vocabulary, alone = vocabulary_of(recipe), World(0, 1, world.device)
    precision = choose_precision(recipe.train.precision, recipe.model.with_vocabulary(vocabulary), alone, say)
    device = this_device(world.device, precision)
    chosen = choose(recipe, vocabulary, device, precision=device.precision, ranks=world.size)
    say(chosen.why)
    return chosen.recipe


@dataclass(frozen=True)
class Forecast:
    """What a run of so many steps was planned to take, in seconds of training and in bytes of one process."""

    seconds: float
    memory: float

    @classmethod
    def of(cls, recipe: Recipe, arch: Architecture, device: Device, steps: int, ranks: int) -> Forecast:
        """Of a settled recipe: its micro-batch, precision and compilation are known."""
        compiled = recipe.train.compile == "yes"
        planned = works(recipe, device, precision=device.precision, compiled=compiled, ranks=ranks)
        each = step_seconds(recipe, arch, device, planned, device.precision, ranks)
        held = largest(recipe, arch, planned).total + (RUNTIME["cpu"] if device.kind == "cpu" else 0.0)
        return cls(run_seconds(recipe, steps, each), held)

    def beside(self, seconds: float, memory: float) -> str:
        """The plan and the measurement in one line."""
        return (
            f"planned {self.seconds / 60:.2g} minutes and {size(self.memory)} of memory; "
            f"measured {seconds / 60:.2g} minutes and {size(memory)}"
        )


def most_memory(device: torch.device) -> float:
    """Bytes that this process held at most: of the GPU's by its tensors, of the host's on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
