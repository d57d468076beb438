"""`ingot recipes`: what there is to train, and every key of it."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from ingot.cli.app import Overrides, RecipeName, family, print_table
from ingot.errors import UserError

recipes = family(
    "recipes", "List the built-in recipes, show one, explain every key, or list the corpora known by name."
)


@recipes.default
@recipes.command(name="list", usage="Usage: ingot recipes list")
def list_recipes() -> None:
    """Name, size and purpose of each built-in recipe."""
    from ingot.estimate.text import vocabulary_of
    from ingot.model.architecture import parameter_counts
    from ingot.recipe import Recipe, builtin_recipes

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
    from ingot.config import to_yaml
    from ingot.recipe import Recipe

    print(to_yaml(Recipe.load(recipe, overrides)), end="")


@recipes.command(usage="Usage: ingot recipes explain [KEY]")
def explain(
    prefix: Annotated[
        str, Parameter(name="KEY", help="only the keys that begin so, such as train or optimizer[muon]")
    ] = "",
    /,
) -> None:
    """Every key of a recipe: type, default, meaning and unit."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ingot.config import explain as keys_of
    from ingot.config import nearest
    from ingot.recipe import Recipe

    every = list(keys_of(Recipe))
    keys = [key for key in every if key.path.startswith(prefix)]
    if not keys:
        raise UserError(f"there is no key {prefix!r}", mend=nearest(prefix, [key.path for key in every]))
    if not sys.stdout.isatty():  # one key a line, for grep
        rows = [(key.path, key.type, key.default, key.meaning) for key in keys]
        print_table(["key", "type", "default", "meaning"], rows)
        return
    table = Table(box=None, pad_edge=False, show_header=False, leading=1)
    for key in keys:
        default = f" = {key.default}" if key.default not in ("", "needed") else f"  {key.default}"
        table.add_row(Text.assemble((key.path, "bold"), "\n", (f"  {key.type}{default}", "dim")), Text(key.meaning))
    Console(highlight=False).print(table)


@recipes.command(usage="Usage: ingot recipes corpora")
def corpora() -> None:
    """The corpora that a source of the kind hub knows by name: where they lie, how large they are, whose they are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ingot.data.corpora import CORPORA

    if not sys.stdout.isatty():  # one corpus a line, for grep
        rows = [(name, one.path, one.configuration, one.size, one.licence, one.note) for name, one in CORPORA.items()]
        print_table(["corpus", "on the hub", "configuration", "size", "licence", "what it is"], rows)
        return
    table = Table(box=None, pad_edge=False, show_header=False, leading=1)
    for name, one in CORPORA.items():
        place = f"{one.path}, {one.configuration}" if one.configuration else one.path
        about = f"{one.note[0].upper()}{one.note[1:]}. {one.size}. Licence: {one.licence}."
        table.add_row(Text.assemble((name, "bold"), "\n", (f"  {place}", "dim")), Text(about))
    Console(highlight=False).print(table)
