"""`ingot recipes`: what there is to train, and every key of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from textwrap import TextWrapper
from typing import Annotated

from cyclopts import Parameter

from ingot.cli.app import Overrides, RecipeName, family, print_table
from ingot.errors import UserError

recipes = family(
    "recipes", "List the built-in recipes, show one, explain every key, or list the corpora known by name."
)

PAGE, INDENT = 100, 4 * " "  # columns of what is no terminal; before the lines that belong to the one above


@recipes.default
@recipes.command(name="list", usage="Usage: ingot recipes list")
def list_recipes() -> None:
    """Name, size and purpose of each built-in recipe."""
    from ingot.estimate.text import vocabulary_of
    from ingot.model.architecture import parameter_counts
    from ingot.recipe.files import builtin_recipes
    from ingot.recipe.recipe import Recipe

    rows = []
    for name, path in builtin_recipes().items():
        recipe = Recipe.load(name)
        fresh = recipe.model_copy(update={"start": ""})  # the model to start from may not be there yet
        model = recipe.model.with_vocabulary(vocabulary_of(fresh))
        purpose = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        total = parameter_counts(model)["total"]
        rows.append((name, f"{total / 1e9:.2f}B" if total >= 1e9 else f"{total / 1e6:.1f}M", purpose))
    print_table(["recipe", "parameters", "purpose"], rows)


@recipes.command(usage="Usage: ingot recipes show RECIPE [KEY=VALUE …]")
def show(recipe: RecipeName, /, *overrides: Overrides) -> None:
    """The whole recipe as YAML, every default filled in."""
    from ingot.config.text import to_yaml
    from ingot.recipe.recipe import Recipe

    print(to_yaml(Recipe.load(recipe, overrides)), end="")


@recipes.command(usage="Usage: ingot recipes explain [KEY]")
def explain(
    prefix: Annotated[
        str, Parameter(name="KEY", help="only the keys that begin so, such as train or optimizer[muon]")
    ] = "",
    /,
) -> None:
    """Every key of a recipe: type, default, meaning and unit."""
    from ingot.config.explain import Key
    from ingot.config.explain import explain as keys_of
    from ingot.errors import nearest
    from ingot.recipe.recipe import Recipe

    every = list(keys_of(Recipe))
    keys = [key for key in every if key.path.startswith(prefix)]
    if not keys:
        mend = nearest(prefix, [key.path for key in every], "`ingot recipes explain`")
        raise UserError(f"there is no key {prefix!r}", mend=mend)

    def kind(key: Key) -> str:
        return f"{key.type} {key.default if key.default in ('', 'needed') else f'= {key.default}'}".rstrip()

    _print_entries((key.path, kind(key), key.meaning) for key in keys)


@recipes.command(usage="Usage: ingot recipes corpora")
def corpora() -> None:
    """The corpora that a source of the kind hub knows by name: where they lie, how large they are, whose they are."""
    from ingot.data.corpora import CORPORA

    _print_entries(
        (
            name,
            f"{one.path}, {one.configuration}" if one.configuration else one.path,
            f"{one.note[0].upper()}{one.note[1:]}. {one.size}. Licence: {one.licence}.",
        )
        for name, one in CORPORA.items()
    )


def _print_entries(entries: Iterable[tuple[str, str, str]]) -> None:
    """Names, each with what it is beside it and what it means below, in lines as wide as the terminal or a page."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PAGE)
    lines = TextWrapper(console.width, subsequent_indent=INDENT, break_on_hyphens=False)
    for name, what, meaning in entries:
        head = Text(lines.fill(f"{name}  {what}"), "dim")
        head.stylize("not dim bold", 0, len(name))
        console.print(head, lines.fill(f"{INDENT}{meaning}"), sep="\n", markup=False, soft_wrap=True)
