"""The job behind `ingot demo`: a model raised from the State of the Union speeches, in minutes, on any machine."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ingot.recipe import Recipe


def demo(overrides: Sequence[str] = ()) -> None:
    """Train the recipe `demo`, or go on with it, and say what can be done with the model. Raises UserError."""
    recipe = Recipe.load("demo", overrides)  # before PyTorch is loaded, so that a mistake is told at once
    from ingot.train.run import train

    Console(highlight=False).print(
        "ingot raises a small language model from 235 years of State of the Union speeches: it learns its tokenizer,\n"
        f"then trains for {recipe.train.duration}. Ctrl-C saves; the same command goes on.\n",
        markup=False,
    )
    train(recipe)
