"""What the runs of a sweep came to, what follows from it, and where that is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ingot.dashboard.library import STUDY
from ingot.dashboard.run import RunRecord
from ingot.dashboard.series import number
from ingot.dashboard.study import write_study
from ingot.dashboard.text import compact
from ingot.errors import UserError
from ingot.files import make_folder, write_atomically
from ingot.sweep.grid import Grid, Point, spelled
from ingot.sweep.law import FURTHER, fit

SEED = "seed"  # the key whose values are repetitions and not a choice
NEAR = 0.01  # share of the lowest loss, within which a cheaper run is worth naming


@dataclass
class Result:
    """One run. What is not known is NaN; `state`: waiting, running, finished, stopped or failed."""

    name: str
    values: dict[str, Any]
    state: str = "waiting"
    why: str = ""
    """it failed"""
    parameters: float = math.nan
    tokens: float = math.nan
    flops: float = math.nan
    seconds: float = math.nan
    final_loss: float = math.nan
    """held-out, nats a token"""
    best_loss: float = math.nan
    bits_per_byte: float = math.nan

    def read(self, folder: Path) -> None:
        """Take over what the run in `folder` has recorded until now."""
        if not folder.is_dir():
            return
        run = RunRecord.read(folder)
        losses = [loss for one in run.of("validation") if math.isfinite(loss := number(one.get("loss")))]
        self.parameters, self.tokens, self.seconds = run.parameters, run.latest("tokens"), run.latest("seconds")
        self.flops = run.journal.flops or math.nan
        self.final_loss, self.best_loss = losses[-1] if losses else math.nan, min(losses, default=math.nan)
        self.bits_per_byte = number(run.measured.get("bits_per_byte"))


@dataclass
class Sweep:
    """A sweep's grid and results, kept as sweep.json and report.html in `folder` after each change."""

    folder: Path
    recipe: str
    grid: Grid
    results: list[Result] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, recipe: str, grid: Grid) -> Sweep:
        """With what earlier commands have left of its runs."""
        made = cls(folder, recipe, grid, [Result(point.name, point.values) for point in grid.points])
        for result in made.results:
            result.read(folder / result.name)
        return made

    def result(self, point: Point) -> Result:
        """Of one of the grid's runs."""
        return next(result for result in self.results if result.name == point.name)

    def save(self) -> None:
        """Write both files."""
        make_folder(self.folder)
        path = self.folder / STUDY
        write_atomically(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")
        write_study(path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is not known is None."""
        runs = [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in run.items()
            }
            for run in map(asdict, self.results)
        ]
        law, refusal = self.law()
        told = {"recipe": self.recipe, "keys": self.grid.keys, "fixed": list(self.grid.fixed), "runs": runs}
        return {"format": 1, **told, "law": law, "no_law": refusal, "advice": list(self.advice())}

    def law(self) -> tuple[dict[str, Any] | None, str]:
        """The law through the best run of each size, as plain values, or why there is none."""
        best: dict[float, float] = {}
        for _, loss, runs in self._settings():
            size = runs[0].parameters
            if math.isfinite(size) and math.isfinite(loss):
                best[size] = min(loss, best.get(size, math.inf))
        points = sorted([size, loss] for size, loss in best.items())
        if len(points) < 2:
            return None, ""
        try:
            law = fit(*zip(*points, strict=True))
        except UserError as error:
            return None, f"No law: {error.what}; {error.mend}."
        largest = points[-1][0]
        expected = [{"parameters": factor * largest, "loss": law.at(factor * largest)} for factor in FURTHER]
        told = {"floor": law.floor, "scale": law.scale, "exponent": law.exponent, "exponent_interval": law.between(2)}
        return {
            **told,
            "text": law.text,
            "source": law.source,
            "points": points,
            "curve": law.curve(),
            "expected": expected,
        }, ""

    def advice(self) -> Iterator[str]:
        """What to choose, in sentences."""
        settings = [one for one in self._settings() if math.isfinite(one[1])]
        if not settings:
            return
        values, lowest, runs = min(settings, key=lambda one: one[1])
        losses = [run.best_loss for run in runs]
        spread = f", mean of {len(losses)} seeds, ± {stdev(losses):.4f} between them" if len(losses) > 1 else ""
        yield f"Lowest held-out loss: {spelled(values) or runs[0].name}, {lowest:.4f} nats a token{spread}."
        near = [one for one in settings if one[1] <= lowest * (1 + NEAR) and _cost(one[2]) < 0.9 * _cost(runs)]
        if near:
            cheap, loss, cheaper = min(near, key=lambda one: _cost(one[2]))
            share = _cost(cheaper) / _cost(runs)
            yield f"Within {NEAR:.0%} of it at {share:.0%} of the FLOPs: {spelled(cheap)}, {loss:.4f}."
        yield from self._edges(values)
        if law := self.law()[0]:
            for one in law["expected"]:
                loss, low, high = one["loss"]
                size = compact(one["parameters"])
                yield f"By the law, {size} parameters trained alike come to {loss:.3f} ({low:.3f} to {high:.3f})."

    def _edges(self, best: dict[str, Any]) -> Iterator[str]:
        """Where the best value is the last one that was tried."""
        for key, values in self.grid.keys.items():
            numbers = [number(value) for value in values]
            if key == SEED or not all(map(math.isfinite, numbers)) or len(numbers) < 2:
                continue
            place = number(best[key])
            if place in (min(numbers), max(numbers)) and not key.startswith("model."):
                side = "smallest" if place == min(numbers) else "largest"
                yield f"{key}={best[key]} is the {side} that was tried: the best may lie beyond it."

    def _settings(self) -> list[tuple[dict[str, Any], float, list[Result]]]:
        """The finished runs by what they set but for the seed: values, mean of the lowest losses, runs."""
        groups: dict[str, list[Result]] = {}
        for result in self.results:
            if result.state == "finished" and math.isfinite(result.best_loss):
                values = {key: value for key, value in result.values.items() if key != SEED}
                groups.setdefault(spelled(values), []).append(result)
        return [
            (
                {key: value for key, value in runs[0].values.items() if key != SEED},
                fmean(run.best_loss for run in runs),
                runs,
            )
            for runs in groups.values()
        ]


def _cost(runs: Sequence[Result]) -> float:
    return fmean(run.flops for run in runs)
