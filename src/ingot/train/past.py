"""What the steps of a run took that was made on this machine, for the plan of another of the same shape."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingot.errors import UserError
from ingot.recipe.recipe import Recipe
from ingot.track.tracker import METRICS
from ingot.train.timetable import Timetable

LEAST = 8  # steps of a stage from which its speed is known
SAME = ("model", "tokenizer", "optimizer", "loss", "parallel")  # what decides, beside the stages, what a step takes
MACHINE = ("device", "cores", "system")  # what tells machines apart


@dataclass(frozen=True)
class Past:
    """A run of the same shape on the same machine."""

    run: str
    day: str
    compiled: bool
    step_seconds: tuple[float, ...]
    """of a step in each stage, the mean over its steps"""


def past(recipe: Recipe, machine: Mapping[str, Any], precision: str, ranks: int) -> Past | None:
    """The run beside which `recipe` would lie that tells what its steps take here: the one of its name first.

    None where there is none whose steps do the same on such a `machine` in the same number format.
    """
    began = {key: machine[key] for key in MACHINE}, precision, ranks
    others = sorted(recipe.runs.iterdir()) if recipe.runs.is_dir() else []
    for folder in (recipe.folder, *(other for other in others if other != recipe.folder)):
        try:
            run = Recipe.load(folder / "recipe.yaml")
            if _alike(run, recipe) and (found := _seconds(folder, run, began)):
                day, seconds = found
                return Past(folder.name, day, run.train.compile == "yes", seconds)
        except (UserError, OSError, ValueError, KeyError, TypeError):  # no run, or one of another version
            continue
    return None


def _alike(run: Recipe, recipe: Recipe) -> bool:
    """Whether a step of `run` does what a step of `recipe` would."""
    one, other = run.to_dict(), recipe.to_dict()
    if recipe.train.compile not in ("auto", run.train.compile):
        return False
    if recipe.memory.micro_batch not in ("auto", run.memory.micro_batch):
        return False
    if run.memory.checkpoint_every != recipe.memory.checkpoint_every:
        return False
    stages = [[(stage.share, stage.length, stage.batch_tokens) for stage in each.stages] for each in (run, recipe)]
    return stages[0] == stages[1] and all(one[key] == other[key] for key in SAME)


def _seconds(folder: Path, run: Recipe, began: object) -> tuple[str, tuple[float, ...]] | None:
    """The day of the last start that `began` so, and the mean seconds of a step in each stage; None: too few steps."""
    timetable = Timetable(run.train.steps or 1, tuple(run.stages))
    stages: list[list[float]] = [[] for _ in timetable.stages]
    same, day, last = False, "", (0, 0.0)
    for record in _records(folder):
        if record["kind"] == "start":
            machine = {key: record["machine"][key] for key in MACHINE}
            same = (machine, record["precision"], record["processes"]) == began
            day = datetime.date.fromtimestamp(record["time"]).isoformat() if same else day
        elif record["kind"] == "train":
            step, seconds = record["step"], record["seconds"]
            if same and step == last[0] + 1 and step > 1:  # the first one warms up
                stages[timetable.stages.index(timetable.stage(step - 1))].append(seconds - last[1])
            last = step, seconds
    if not all(len(seconds) >= LEAST for seconds in stages):
        return None
    return day, tuple(sum(seconds) / len(seconds) for seconds in stages)


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    """The whole records of a run, which may be going on."""
    with (folder / METRICS).open("rb") as file:
        yield from (json.loads(line) for line in file if line.endswith(b"\n"))
