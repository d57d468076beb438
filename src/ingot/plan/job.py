"""The job behind `ingot plan`. It starts nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ingot.estimate.devices import Device, find_device
from ingot.estimate.text import vocabulary_of
from ingot.plan.plan import Plan, make_plan
from ingot.plan.show import show
from ingot.recipe.recipe import Recipe
from ingot.terminal import plain_console
from ingot.train.past import past


def plan(recipe: Recipe, *, device: str = "", devices: int = 1, price: float | None = None) -> Plan:
    """Work out what `recipe` needs on so many of `device` (by default the one at hand), and print it.

    `price` is that of an hour of one device, in any currency. Raises UserError.
    """
    console = plain_console()
    here = None if device else at_hand(recipe, console.print)
    before = past(recipe, machine(), here.precision, devices) if here else None
    made = make_plan(recipe, here or find_device(device), devices, before)
    show(made, price, console)
    return made


def machine() -> dict[str, Any]:
    """This machine, as the runs on it record it."""
    from ingot.distributed import World
    from ingot.engine.device import describe

    return describe(World.alone().device).to_dict()


def at_hand(recipe: Recipe, say: Callable[[str], None]) -> Device:
    """The device that training would take here, in the number format that it would take, its peak measured."""
    from ingot.distributed import World
    from ingot.engine.precision import choose_precision
    from ingot.estimate.here import this_device

    world, arch = World.alone(), recipe.model.with_vocabulary(vocabulary_of(recipe))
    return this_device(world.device, choose_precision(recipe.train.precision, arch, world, say))
