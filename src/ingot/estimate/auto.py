"""What `model: auto` comes to: the largest of the named sizes whose memory, as computed, the device has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from ingot.errors import UserError
from ingot.estimate.devices import Device
from ingot.estimate.memory import fitting, largest, room, works
from ingot.model.architecture import Architecture, parameter_counts
from ingot.model.memory import Precision, Work
from ingot.model.presets import AUTO, SIZES
from ingot.optim.optimizer import Optimizer
from ingot.recipe.recipe import Recipe


@dataclass(frozen=True)
class Chosen:
    """A recipe whose model was chosen, and why it was."""

    recipe: Recipe
    size: str
    why: str


def is_auto(recipe: Recipe) -> bool:
    """Whether the size of the recipe's model is still to be chosen."""
    return recipe.model.kind == AUTO


def choose(recipe: Recipe, vocabulary: int, device: Device, *, precision: Precision, ranks: int = 1) -> Chosen:
    """The largest model of which a step fits on `device`, with the least thrift that it takes.

    Thrift is to compute blocks again in the backward pass, and then AdamW with 8-bit state. Raises UserError where not
    even the smallest model fits.
    """
    for size in reversed(list(SIZES)):
        for thrifty in _thriftier(_sized(recipe, size)):
            arch = thrifty.model.with_vocabulary(vocabulary)
            plan = partial(_planned, thrifty, device, precision, ranks)
            if blocks := fitting(thrifty, arch, plan, room(device), ranks):
                held = largest(thrifty, arch, plan(blocks)).total
                why = _reason(thrifty, size, parameter_counts(arch)["total"], held, blocks, device, precision)
                return Chosen(thrifty, size, why)
    raise UserError(
        f"not even the model of size {next(iter(SIZES))} fits the {device.memory / 1e9:,.0f} GB of {device.name}",
        where="model",
        mend="give a smaller shape by model.layers and model.hidden_size, or a shorter model.context",
    )


def _planned(recipe: Recipe, device: Device, precision: Precision, ranks: int, blocks: int) -> list[Work]:
    return works(recipe, device, precision=precision, compiled=False, ranks=ranks, blocks=blocks)


def _sized(recipe: Recipe, size: str) -> Recipe:
    """The recipe with a model of that size, and all else that is given about its model."""
    of_size = {"kind", "head_size", *(name for each in SIZES.values() for name in each)}
    given = {name: value for name, value in recipe.model.to_dict().items() if name not in of_size}
    return recipe.model_copy(update={"model": Architecture.model_validate(given | {"kind": size})})


def _thriftier(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe as it is, and then with less and less memory."""
    yield recipe
    recipe = recipe.with_memory(checkpoint_every=1)
    yield recipe
    if recipe.optimizer.kind == "adamw":
        given = {name: value for name, value in recipe.optimizer.to_dict().items() if name not in ("kind", "state")}
        yield recipe.model_copy(update={"optimizer": Optimizer.model_validate(given | {"kind": "adamw8bit"})})


def _reason(
    recipe: Recipe, size: str, parameters: int, held: float, blocks: int, device: Device, precision: Precision
) -> str:
    larger = list(SIZES)[list(SIZES).index(size) + 1 :]
    why = f"because {larger[0]} does not fit" if larger else "the largest there is"
    has = f"a step holds {held / 1e9:.1f} of the {room(device) / 1e9:.1f} GB that {device.name} has for it"
    again = "every block computed again in the backward pass" if recipe.memory.checkpoint_every else "no block twice"
    how = f"in {precision} with {recipe.optimizer.kind}, {again}, {blocks} x {recipe.model.context:,} tokens at once"
    return f"model: {size}, {parameters / 1e6:,.0f}M parameters, {why}: {has}, {how}"
