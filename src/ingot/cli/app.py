"""The program `ingot`, to which each module beside this one adds its verbs, and what the verbs share."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ingot import __version__
from ingot.errors import UserError

app = App(
    name="ingot",
    help="Raise a language model from raw text.",
    version=__version__,
    help_format="plaintext",
    default_parameter=Parameter(negative=""),
    suppress_keyboard_interrupt=False,  # `run` says so in one line
)

RecipeName = Annotated[str, Parameter(help="a recipe file, or the name of a built-in recipe")]
Overrides = Annotated[str, Parameter(help="key=value, such as model.layers=12; `ingot recipes explain` lists the keys")]
ModelName = Annotated[str, Parameter(help="a run's name, name@best, name@latest, name@1200, or a model folder")]


def family(name: str, purpose: str) -> App:
    """A command with commands of its own."""
    made = App(name=name, help=purpose)
    app.command(made)
    return made


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Around the import of PyTorch: nobody looks for garbage, then or later, among what modules are made of.

    There is next to none, and looking is a tenth of the time to a run's first step (docs/lab-log.md).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def missing_models_first(*references: str, runs: Path) -> Iterator[None]:
    """Around what else a verb needs: where that is missing, and one of its models is not there, the model is told.

    They are looked for only then: to verify a model is to read all of it.
    """
    try:
        yield
    except UserError:
        from ingot.checkpoint.registry import resolve

        for reference in references:
            resolve(reference, runs)
        raise


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One line for each row, in columns as wide as they need to be."""
    columns = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        line = "  ".join(f"{part:{width}}" for part, width in zip(row, columns, strict=True))
        print(line.rstrip())
