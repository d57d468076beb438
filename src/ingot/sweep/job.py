"""The job behind `ingot sweep`: each run of a grid in a process of its own, one after another; what is done is kept."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ingot.dashboard.run import RunRecord
from ingot.errors import UserError
from ingot.recipe.recipe import Recipe
from ingot.sweep.grid import Grid, Point
from ingot.sweep.results import Result, Sweep

INTERRUPTED = (-signal.SIGINT, 128 + signal.SIGINT)  # exit statuses of a run that Ctrl-C ended
SAID = 300  # characters of a failed run's last line that are kept


def sweep(recipe: str, assignments: Sequence[str], *, name: str = "", say: Callable[[str], None] = print) -> Sweep:
    """Train every combination of `key=a,b,c`, each in `runs/NAME/`, or go on with what is left of it.

    Finished runs stay as they are, an interrupted one goes on, a failed one is tried again; its failure is kept in its
    result and does not stop the others. Raises UserError where no run is possible, KeyboardInterrupt at Ctrl-C.
    """
    grid = Grid.of(assignments)
    wanted, impossible = _recipes(recipe, grid)
    first = next(iter(wanted.values()))
    folder = first.runs / (name or f"{first.name}-sweep")
    done = Sweep.of(folder, recipe, grid)
    for point in grid.points:
        result = done.result(point)
        if point.name in impossible:
            result.state, result.why = "failed", impossible[point.name]
        elif _is_done(folder / point.name, wanted[point.name]):
            result.state = "finished"
    done.save()
    for name, why in impossible.items():
        say(f"left out: {name}: {why}")
    left = [point for point in grid.points if done.result(point).state == "waiting"]
    say(f"{len(grid.points)} runs in {folder}, {len(left)} to train")
    for number, point in enumerate(left, start=1):
        say(f"\n{number} of {len(left)}: {point.name}")
        _train(done, point, _settings(recipe, grid, point, wanted[point.name], folder))
    return done


def _recipes(recipe: str, grid: Grid) -> tuple[dict[str, Recipe], dict[str, str]]:
    """The recipe of each run, and for those that can't be one, why. Raises UserError where none can."""
    wanted: dict[str, Recipe] = {}
    impossible: dict[str, str] = {}
    mistakes = []
    for point in grid.points:
        try:
            wanted[point.name] = Recipe.load(recipe, [*grid.fixed, *point.assignments])
        except UserError as error:
            impossible[point.name] = str(error)
            mistakes.append(error)
    if not wanted:
        raise mistakes[0]
    return wanted, impossible


def _settings(recipe: str, grid: Grid, point: Point, wanted: Recipe, folder: Path) -> list[str]:
    """The arguments of `ingot train` for one run."""
    begun = wanted.start_folder()  # its name counts among the runs of the recipe, not of the sweep
    start = [f"start={begun}"] if begun else []
    return [recipe, *grid.fixed, *point.assignments, *start, f"name={point.name}", f"runs={folder}"]


def _is_done(folder: Path, wanted: Recipe) -> bool:
    """Whether the run was trained to its end, for as long as is wanted now."""
    if not (folder / "recipe.yaml").exists() or RunRecord.read(folder).state != "finished":
        return False
    return Recipe.load(folder / "recipe.yaml").train.duration == wanted.train.duration


def _train(done: Sweep, point: Point, arguments: Sequence[str]) -> None:
    """Train one run, and keep what it came to."""
    result = done.result(point)
    result.state = "running"
    done.save()
    status, said = None, ""
    try:
        status, said = _run([sys.executable, "-m", "ingot", "train", *arguments])
    finally:
        _take_over(result, done.folder / point.name, status, said)
        done.save()
    if status in INTERRUPTED:
        raise KeyboardInterrupt
    if status == -signal.SIGTERM:
        signal.raise_signal(signal.SIGTERM)


def _take_over(result: Result, folder: Path, status: int | None, said: str) -> None:
    result.read(folder)
    interrupted = status is None or status in (*INTERRUPTED, -signal.SIGTERM)
    result.state = "finished" if status == 0 else "stopped" if interrupted else "failed"
    result.why = (said or f"exit status {status}") if result.state == "failed" else ""


def _run(command: Sequence[str]) -> tuple[int, str]:
    """The exit status of a command, and the last line that it said on standard error, which is shown as well."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process, _handed_on(process):
        last = ""
        assert process.stderr
        while True:
            try:
                for line in process.stderr:
                    sys.stderr.write(line)
                    last = line.strip() or last
                return process.wait(), last.removeprefix("ingot: ")[:SAID]
            except KeyboardInterrupt:  # the run has heard it, too: it saves, and then ends
                continue


@contextlib.contextmanager
def _handed_on(process: subprocess.Popen[str]) -> Iterator[None]:
    """While entered, SIGTERM is the run's: it saves, and then ends."""
    former = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
