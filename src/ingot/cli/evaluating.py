"""`ingot evaluate`: what a model is worth, in figures with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from ingot.cli.app import ModelName, app, missing_models_first

if TYPE_CHECKING:
    from ingot.evaluate.record import Evaluation


@app.command(usage="Usage: ingot evaluate MODEL [--data SOURCE …] [--tasks NAME …] [--output FILE] [OPTIONS]")
def evaluate(
    model: ModelName,
    /,
    *,
    data: Annotated[
        list[str] | None,
        Parameter(
            help="text to measure on: a path, package:NAME[:FILES] or a hub dataset; none: what the run held out",
            consume_multiple=True,
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        Parameter(help="standard tasks such as piqa or hellaswag, or folders with a task", consume_multiple=True),
    ] = None,
    output: Annotated[Path | None, Parameter(help="also write it to this .json, .md or .html")] = None,
    prompts: Annotated[
        list[str] | None,
        Parameter(help="texts to continue; none: how held-out documents begin", consume_multiple=True),
    ] = None,
    only: Annotated[
        list[Literal["text", "tasks", "quality", "speed"]] | None,
        Parameter(help="parts to do; none: all", consume_multiple=True),
    ] = None,
    documents: Annotated[PositiveInt | None, Parameter(help="documents of a text to score at most")] = None,
    items: Annotated[PositiveInt | None, Parameter(help="items of a task to score, evenly spread; none: all")] = None,
    precision: Annotated[
        Literal["fp32", "bf16"], Parameter(help="of the matrix products of texts and tasks; bf16: sooner, rounded")
    ] = "fp32",
    runs: Annotated[Path, Parameter(help="folder of all runs")] = Path("runs"),
) -> None:
    """Measure a model: loss on held-out text, tasks, what it writes, speed; kept beside its run."""
    from rich.console import Console

    from ingot.evaluate.show import check_output, write
    from ingot.evaluate.verb import PARTS
    from ingot.evaluate.verb import evaluate as measure

    if output:
        check_output(output)
    console = Console(highlight=False, stderr=True)
    with missing_models_first(model, runs=runs):
        found = measure(
            model,
            data=data or (),
            tasks=tasks or (),
            prompts=prompts or (),
            only=only or PARTS,
            documents=documents,
            items=items,
            precision=precision,
            runs=runs,
            say=lambda line: console.print(line, markup=False, soft_wrap=True, style="dim"),
        )
    _show(found)
    if output:
        write(found, output)
        print(f"written to {output}")


def _show(found: Evaluation) -> None:
    """The tables on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ingot.evaluate.show import extent, headline, sheets

    console = Console(highlight=False)
    console.print(Text(headline(found), style="bold"))
    console.print(Text(extent(found)), soft_wrap=True)
    for sheet in sheets(found):
        table = Table(title=sheet.title, title_justify="left", box=None, pad_edge=False)
        for number, head in enumerate(sheet.heads):
            table.add_column(head, justify="right" if number else "left", overflow="fold")
        for row in sheet.rows:
            table.add_row(*map(Text, row))
        console.print()
        console.print(table)
        for remark in sheet.remarks:
            console.print(Text(remark, style="dim"), soft_wrap=True)
