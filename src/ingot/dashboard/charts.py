"""Which charts there are: one row of `CHARTS` adds one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AXES = {"step": "step", "tokens": "tokens", "seconds": "time", "flops": "FLOPs"}  # what x can be, and its name

Kind = Literal["train", "validation", "system"]


@dataclass(frozen=True)
class Line:
    """One value of one kind of record. `noisy`: what it is drawn of is faint, with its smoothed course over it.

    `look`: how it is drawn in the chart of one run; training and held-out text look the same in all charts.
    """

    kind: Kind
    key: str
    label: str
    noisy: bool = False
    look: Literal["train", "validation"] = "train"


@dataclass(frozen=True)
class Chart:
    """A chart and its lines; `scale`: whether y starts at zero or can be logarithmic."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    width: Literal["whole", "half", "third"]
    figures: Literal["plain", "compact", "percent"] = "plain"
    scale: Literal["zero", "logarithmic"] = "zero"


HELD_OUT: Literal["validation"] = "validation"
CHARTS = (
    Chart(
        "Loss",
        "nats per token; lower is better",
        (Line("train", "loss", "train", noisy=True), Line("validation", "loss", "held-out", look=HELD_OUT)),
        "whole",
        scale="logarithmic",
    ),
    Chart(
        "Bits per byte",
        "of held-out text",
        (Line("validation", "bits_per_byte", "held-out", look=HELD_OUT),),
        "half",
        scale="logarithmic",
    ),
    Chart(
        "Gradient norm",
        "before clipping",
        (Line("train", "gradient_norm", "mean", noisy=True),),
        "half",
        scale="logarithmic",
    ),
    Chart("Learning rate", "× the recipe's rates", (Line("train", "rate", "rate"),), "third"),
    Chart(
        "Throughput",
        "tokens per second",
        (Line("train", "tokens_per_second", "mean", noisy=True),),
        "third",
        "compact",
    ),
    Chart(
        "Share of peak",
        "MFU",
        (Line("train", "share_of_peak", "mean", noisy=True),),
        "third",
        "percent",
    ),
    Chart(
        "Memory",
        "GB",
        (Line("system", "memory_gb", "process", look=HELD_OUT), Line("system", "gpu_memory_gb", "GPU, most so far")),
        "half",
    ),
    Chart(
        "Busy",
        "share of the machine",
        (Line("system", "cpu", "processors", look=HELD_OUT), Line("system", "gpu_utilization", "GPU")),
        "half",
        "percent",
    ),
)


def keys_of(kind: Kind) -> list[str]:
    """What the charts draw of one kind of record."""
    return [line.key for chart in CHARTS for line in chart.lines if line.kind == kind]
