"""`ingot sweep`: a grid of runs, and what it says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ingot.cli.app import RecipeName, app, print_table
from ingot.errors import UserError

if TYPE_CHECKING:
    from ingot.sweep.results import Sweep

Grid = Annotated[
    str, Parameter(name="KEY=VALUE", help="key=a,b,c sweeps, key=a sets; a list is one value: key=[1,2],[3]")
]


@app.command(usage="Usage: ingot sweep RECIPE KEY=A,B,C [KEY=VALUE …] [--name NAME]")
def sweep(
    recipe: RecipeName,
    /,
    *overrides: Grid,
    name: Annotated[str, Parameter(help="folder of the runs, in `runs`; none: the recipe's name and -sweep")] = "",
) -> None:
    """Train every combination of values, one after another; again: go on. Then a table, a law, and what to choose."""
    from ingot.sweep.job import sweep as train_all

    done = train_all(recipe, overrides, name=name, say=lambda line: print(line, flush=True))
    _show(done)
    failed = [result for result in done.results if result.state == "failed"]
    if failed:
        what = f"{len(failed)} of {len(done.results)} runs failed, {failed[0].name} the first of them: {failed[0].why}"
        raise UserError(what, where=str(done.folder), mend="the same command tries them again")


def _show(done: Sweep) -> None:
    from ingot.dashboard.text import DASH, compact, lasting
    from ingot.sweep.grid import spelled

    rows = []
    for result in done.results:
        losses = [result.final_loss, result.best_loss, result.bits_per_byte]
        figures = [f"{value:.4f}" if math.isfinite(value) else DASH for value in losses]
        size = [compact(value) for value in (result.parameters, result.tokens, result.flops)]
        rows.append([spelled(result.values), *size, lasting(result.seconds), *figures, result.state])
    print()
    print_table(["run", "parameters", "tokens", "FLOPs", "time", "final loss", "best loss", "bits/byte", "state"], rows)
    told = done.to_dict()
    law = told["law"]
    lines = [law["text"], f"({law['source']})"] if law else [told["no_law"]] if told["no_law"] else []
    print(
        "\n".join(
            ["", *lines, *told["advice"], f"table and plot: {done.folder / 'report.html'}; JSON: sweep.json there"]
        )
    )
