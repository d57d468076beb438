"""`ingot demo`, `prepare`, `plan` and `train`: what a recipe is made into."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, PositiveInt

from ingot.cli.app import Overrides, RecipeName, app, loading


@app.command(usage="Usage: ingot demo [KEY=VALUE …]")
def demo(*overrides: Overrides) -> None:
    """Raise a small model from packaged text in minutes, and teach it to talk; again: go on.

    KEY=VALUE changes the first part, chat.KEY=VALUE the second, as chat.train.duration="60 steps".
    """
    from ingot.demo import demo

    demo(overrides)


@app.command(usage="Usage: ingot prepare RECIPE [KEY=VALUE …]")
def prepare(recipe: RecipeName, /, *overrides: Overrides) -> None:
    """Make the tokenizer and the token cache that a recipe needs; what is there already is kept."""
    from ingot.recipe.recipe import Recipe

    loaded = Recipe.load(recipe, overrides)  # before PyTorch, as everywhere here: a mistake is told at once
    from ingot.prepare import prepare

    prepare(loaded)


@app.command(usage="Usage: ingot plan RECIPE [KEY=VALUE …] [--device NAME] [--devices NUMBER] [--price PRICE]")
def plan(
    recipe: RecipeName,
    /,
    *overrides: Overrides,
    device: Annotated[str, Parameter(help="a GPU such as H100, T4 or RTX-4090; none: what this machine has")] = "",
    devices: Annotated[PositiveInt, Parameter(help="how many of them share the work")] = 1,
    price: Annotated[NonNegativeFloat | None, Parameter(help="of an hour of one device, in any currency")] = None,
) -> None:
    """What a recipe will need: parameters, FLOPs, memory, disk, time, cost. Starts nothing."""
    from ingot.plan.job import plan
    from ingot.recipe.recipe import Recipe

    plan(Recipe.load(recipe, overrides), device=device, devices=devices, price=price)


@app.command(usage="Usage: ingot train RECIPE [KEY=VALUE …] [--fresh] [--dry-run]")
def train(
    recipe: RecipeName,
    /,
    *overrides: Overrides,
    fresh: Annotated[bool, Parameter(help="begin anew; a run of the same name is moved aside")] = False,
    dry_run: Annotated[bool, Parameter(help="all but training: the model's shape, the data's start, one step")] = False,
) -> None:
    """Train: prepare what is missing, and go on with what was begun. Ctrl-C saves and ends."""
    from ingot.recipe.recipe import Recipe

    loaded = Recipe.load(recipe, overrides)
    if dry_run:
        from ingot.train.dry import dry_run as rehearse

        rehearse(loaded)
        return
    with loading():
        from ingot.train.run import train

    train(loaded, fresh=fresh)
