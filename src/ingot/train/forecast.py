"""What was planned for a run, beside what it was: the model's size before it begins, time and memory when it ends."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ingot.checkpoint.store import Checkpoints
from ingot.data.build.report import size
from ingot.distributed import World, most_held
from ingot.engine.precision import choose_precision
from ingot.estimate.auto import choose, is_auto
from ingot.estimate.devices import Device
from ingot.estimate.here import this_device
from ingot.estimate.memory import process, works
from ingot.estimate.text import vocabulary_of
from ingot.estimate.time import seconds_at
from ingot.model.architecture import Architecture
from ingot.recipe.recipe import Recipe
from ingot.rhythm import in_words

WARM_UP, LEAST = 2, 8  # steps that do not count, and how many do at least
LOOKED_AT, SHARE = 20.0, 0.05  # seconds of steps, or that share of the run, that are enough
POINTS = 100  # of the rest of a run at which its steps are counted


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


class Outlook:
    """How long a run of `steps` steps will take, told by its own first ones and what the others cost beside them."""

    def __init__(self, recipe: Recipe, arch: Architecture, device: Device, steps: int, ranks: int):
        """Of a settled recipe: its micro-batch, precision and compilation are known."""
        compiled = recipe.train.compile == "yes"
        self._works = works(recipe, device, precision=device.precision, compiled=compiled, ranks=ranks)
        self._of = recipe, arch, device
        self._steps, self._ranks = steps, ranks
        self._measured = self._counted = 0.0  # seconds of the first steps, as they were and by arithmetic
        self._heard = 0
        self.seconds: float | None = None
        """of training, once enough steps were made"""

    @property
    def memory(self) -> float:
        """Bytes of one process, by arithmetic."""
        recipe, arch, device = self._of
        return process(recipe, arch, self._works, device.kind)

    def hear(self, step: int, seconds: float, so_far: float) -> bool:
        """Take note that the step after `step - 1` done ones took `seconds`; whether that was enough, the first time.

        `so_far`: all seconds of training until now.
        """
        self._heard += 1
        if self.seconds is not None or self._heard <= WARM_UP:
            return False
        self._measured += seconds
        self._counted += self._cost((step - 0.5) / self._steps)
        left = self._left(step) * self._measured / self._counted
        enough = self._heard >= WARM_UP + LEAST and self._measured >= min(LOOKED_AT, SHARE * (so_far + left))
        if enough:
            self.seconds = so_far + left
        return enough

    def beside(self, seconds: float, memory: float) -> str:
        """What training took beside the forecast by its first steps, or by arithmetic alone, and the planned memory."""
        forecast, by = (self._left(0), "arithmetic") if self.seconds is None else (self.seconds, "its first steps")
        return (
            f"training took {in_words(seconds)}, forecast by {by}: {in_words(forecast)}; "
            f"memory {size(memory)}, planned: {size(self.memory)}"
        )

    def _cost(self, done: float) -> float:
        recipe, arch, device = self._of
        return seconds_at(recipe, arch, device, self._works, device.precision, done, self._ranks)

    def _left(self, step: int) -> float:
        """Seconds of the steps after `step`, by arithmetic."""
        begin = step / self._steps
        costs = [self._cost(begin + (1 - begin) * (place + 0.5) / POINTS) for place in range(POINTS)]
        return (self._steps - step) * sum(costs) / POINTS


def most_memory(device: torch.device) -> float:
    """Bytes that this process held at most: on a GPU its tensors and what CUDA and its libraries take beside them."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        libraries = total - free - torch.cuda.memory_reserved(device)
        return float(torch.cuda.max_memory_allocated(device) + max(0, libraries))
    return float(most_held() or 0)
