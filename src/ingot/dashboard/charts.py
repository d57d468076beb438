"""Which charts a run has, and their points as plain values for the page. One row of `CHARTS` adds a chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ingot.dashboard.run import RunRecord
from ingot.dashboard.series import Array, columns, smooth, thin

POINTS = 1_500  # of one line: about one per pixel of a wide screen
AXES = {"step": "step", "tokens": "tokens", "seconds": "time"}  # what x can be: key of a record, and its name


@dataclass(frozen=True)
class Line:
    """One value of one kind of record. `noisy`: drawn faint, with its smoothed course over it.

    `look`: how it is drawn; what is measured in training or on held-out text looks the same in all charts.
    """

    kind: Literal["train", "validation", "system"]
    key: str
    label: str
    noisy: bool = False
    look: Literal["train", "validation"] = "train"


@dataclass(frozen=True)
class Chart:
    """A chart, its lines, and how it is drawn; `scale`: whether y starts at zero or can be logarithmic."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    width: Literal["whole", "half", "third"]
    figures: Literal["plain", "compact", "percent"]
    scale: Literal["zero", "logarithmic"]


CHARTS = (
    Chart(
        "Loss",
        "nats per token; lower is better",
        (Line("train", "loss", "train", noisy=True), Line("validation", "loss", "held-out", look="validation")),
        "whole",
        "plain",
        "logarithmic",
    ),
    Chart(
        "Bits per byte",
        "of held-out text",
        (Line("validation", "bits_per_byte", "held-out", look="validation"),),
        "half",
        "plain",
        "logarithmic",
    ),
    Chart(
        "Gradient norm",
        "before clipping",
        (Line("train", "gradient_norm", "mean", noisy=True),),
        "half",
        "plain",
        "logarithmic",
    ),
    Chart("Learning rate", "× the recipe's rates", (Line("train", "rate", "rate"),), "third", "plain", "zero"),
    Chart(
        "Throughput",
        "tokens per second",
        (Line("train", "tokens_per_second", "mean", noisy=True),),
        "third",
        "compact",
        "zero",
    ),
    Chart(
        "Share of peak",
        "of measured matmul",
        (Line("train", "share_of_peak", "mean", noisy=True),),
        "third",
        "percent",
        "zero",
    ),
    Chart(
        "Memory",
        "GB",
        (
            Line("system", "memory_gb", "process", look="validation"),
            Line("system", "gpu_memory_gb", "GPU, most so far"),
        ),
        "half",
        "plain",
        "zero",
    ),
    Chart(
        "Busy",
        "share of the machine",
        (Line("system", "cpu", "processors", look="validation"), Line("system", "gpu_utilization", "GPU")),
        "half",
        "percent",
        "zero",
    ),
)


def chart_data(run: RunRecord) -> dict[str, Any]:
    """What the page draws: the axes that can be chosen and every chart that has a point, as plain JSON values."""
    tables = {kind: _table(run, kind) for kind in ("train", "validation", "system")}
    charts = []
    for chart in CHARTS:
        series = [drawn for line in chart.lines for drawn in _drawn(line, tables[line.kind])]
        if series:
            looks = {"title": chart.title, "unit": chart.unit, "width": chart.width}
            charts.append({**looks, "figures": chart.figures, "scale": chart.scale, "series": series})
    known = [axis for axis in AXES if any(np.isfinite(table[axis]).any() for table in tables.values())]
    return {"axes": [{"key": axis, "name": AXES[axis]} for axis in known], "charts": charts}


def _table(run: RunRecord, kind: str) -> dict[str, Array]:
    keys = [line.key for chart in CHARTS for line in chart.lines if line.kind == kind]
    return columns(run.of(kind), [*AXES, *keys])


def _drawn(line: Line, table: dict[str, Array]) -> list[dict[str, Any]]:
    """The series that show `line`: none without a finite value, two when it is noisy and long enough to smooth."""
    values = table[line.key]
    if not np.isfinite(values).any():
        return []
    reach = len(values) // 100
    if not line.noisy or not reach:
        return [_series(line, line.label, line.look, values, table)]
    return [
        _series(line, line.label, line.look, smooth(values, reach), table),
        _series(line, "raw", "raw", values, table),
    ]


def _series(line: Line, label: str, look: str, values: Array, table: dict[str, Array]) -> dict[str, Any]:
    places = thin(values, POINTS)
    xs = {axis: _plain(table[axis][places]) for axis in AXES}
    return {"label": label, "look": look, **xs, "value": _plain(values[places])}


def _plain(values: Array) -> list[float | int | None]:
    """JSON values: whole numbers as such, others to 6 digits, None for what is not finite."""
    return [
        None if not np.isfinite(value) else int(value) if value.is_integer() else float(f"{value:.6g}")
        for value in values
    ]
