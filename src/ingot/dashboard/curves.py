"""The curves of runs as plain values for the page: the mean and, where records were joined, the extremes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ingot.dashboard.charts import AXES, CHARTS, Kind, Line
from ingot.dashboard.run import RunRecord
from ingot.dashboard.series import Array

POINTS = 1_024  # of one line: about one per pixel of a wide screen
FEWEST, TOGETHER = 160, 8_000  # of one line, and of the same line of all runs, where many are drawn
LINES = list(itertools.chain.from_iterable(chart.lines for chart in CHARTS))
KINDS: tuple[Kind, ...] = ("train", "validation", "system")


def chart_data(runs: Sequence[RunRecord], known: Sequence[str] = (), *, together: bool = False) -> dict[str, Any]:
    """What the page draws: axes, panels and the curves of every run; numpy arrays are values, NaN is none.

    `together`: a panel for each line with one curve a run. `known`: the versions that the page has already; the curves
    of a run whose version is among them are left out.
    """
    points = min(POINTS, max(FEWEST, TOGETHER // max(1, len(runs))))
    drawn = [_of_run(run, points, known) for run in runs]
    axes = [{"key": axis, "name": name} for axis, name in AXES.items()]
    return {"axes": axes, "panels": _panels(together), "together": together, "runs": drawn}


def _panels(together: bool) -> list[dict[str, Any]]:
    """What can be drawn; the page leaves out a panel without a curve."""
    panels = []
    for chart in CHARTS:
        lines = [LINES.index(line) for line in chart.lines]
        looks = {"unit": chart.unit, "width": chart.width, "figures": chart.figures, "scale": chart.scale}
        for group in [[line] for line in lines] if together else [lines]:
            title = chart.title if len(lines) == len(group) else f"{chart.title} · {LINES[group[0]].label}"
            width = "half" if together else chart.width
            panels.append({"title": title, **looks, "width": width, "lines": group})
    return panels


def _of_run(run: RunRecord, points: int, known: Sequence[str]) -> dict[str, Any]:
    version = f"{run.name}:{run.version}:{points}"
    about = {"name": run.name, "version": version, "sampled": run.journal.sampled}
    if version in known:
        return about
    series = []
    for kind in KINDS:
        axes, values = run.journal.measured(kind, points)
        for place, line in enumerate(LINES):
            if line.kind == kind and (drawn := _series(place, line, axes, *values[line.key])):
                series.append(drawn)
    return about | {"series": sorted(series, key=lambda one: one["line"])}


def _series(
    place: int, line: Line, axes: dict[str, Array], mean: Array, low: Array, high: Array
) -> dict[str, Any] | None:
    """The curve of one line; none without a finite value."""
    if not np.isfinite(mean).any():
        return None
    xs = {axis: _short(along) for axis, along in axes.items() if np.isfinite(along).any()}
    drawn = {"line": place, "label": line.label, "look": line.look, "noisy": line.noisy, **xs, "value": _short(mean)}
    if np.array_equal(low, high, equal_nan=True):
        return drawn
    return drawn | {"low": _short(low), "high": _short(high)}


def _short(values: Array) -> Array:
    """Values of six digits; whole numbers as they are."""
    with np.errstate(all="ignore"):
        scale = 10.0 ** (5 - np.floor(np.log10(np.abs(values))))
        rounded = np.round(values * scale) / scale
    return np.where((values == np.floor(values)) | ~np.isfinite(rounded), values, rounded)
