"""The job behind `ingot prepare`: tokenizer and token cache, made where they are missing, and a word on each."""

from __future__ import annotations

from rich.console import Console

from ingot.data.cache import TokenCache
from ingot.data.prepare import prepare as prepare_data
from ingot.recipe import Recipe


def prepare(recipe: Recipe) -> TokenCache:
    """Make what `recipe` trains on, or find it made, and print what went into it. Raises UserError."""
    console = Console(highlight=False, markup=False)
    data = recipe.data
    return prepare_data(data.sources, data.held_out, recipe.tokenizer, recipe.cache, console.print)[1]
