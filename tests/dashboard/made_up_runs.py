"""Run folders as training leaves them, made up: what the tests of this room read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ingot.checkpoint.manifest import MANIFEST, Manifest

Record = dict[str, Any]
PAYLOAD = "</script></style><img src=x onerror=\"document.title='taken'\"><!--<script>'&amp;"
TOLD = "The state of our union"


def train_records(steps: int, first: int = 1) -> list[Record]:
    return [
        {
            "kind": "train",
            "step": step,
            "tokens": step * 4096,
            "loss": 3 + 6 * math.exp(-step / 40) + 0.05 * math.sin(step * 7.0),
            "rate": min(1.0, step / 10),
            "gradient_norm": 0.4 + 1 / step,
            "seconds": step * 0.37,
            "tokens_per_second": 4096 / 0.37,
            "flops": 1e12,
            "share_of_peak": 0.58,
        }
        for step in range(first, steps + 1)
    ]


def validation_record(step: int, loss: float = 3.2146) -> Record:
    figures = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": loss / 2.86, "scored_tokens": 50_000}
    return {"kind": "validation", "step": step, "tokens": step * 4096, "seconds": step * 0.37, "whole": True} | figures


START = {
    "kind": "start",
    "step": 0,
    "machine": {"device": "a fine processor", "cores": 2, "memory_gb": 33.6},
    "parameters": {"embedding": 2_097_152, "total": 7_408_384},
}
RECIPE = {
    "name": "demo",
    "model": {"family": "qwen3", "layers": 4, "hidden_size": 256, "qk_norm": True},
    "train": {"duration": "5 minutes", "settled": "300 steps for 5 minutes"},
    "samples": {"prompts": [TOLD]},
}


def finished_records() -> list[Record]:
    """Those of a finished run of 300 steps."""
    measured = [validation_record(step, 4.5 - step / 300) for step in (100, 200, 300)]
    peak = {"kind": "peak", "step": 1, "matmul_peak": 1.03e12}
    return [START, *train_records(300), peak, *measured, {"kind": "end", "step": 300, "complete": True}]


def lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def write_run(
    folder: Path,
    records: list[Record] | None = None,
    samples: list[Record] | None = None,
    recipe: Record | str = RECIPE,
) -> Path:
    """Write a run's folder: a finished run of 300 steps unless told otherwise."""
    folder.mkdir(parents=True)
    if samples is None:
        moments = [(100, " the of and"), (200, " of the people"), (300, " is strong")]
        samples = [{"step": step, "tokens": step * 4096, "text": text, "prompt": TOLD} for step, text in moments]
    (folder / "recipe.yaml").write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe), "utf-8")
    (folder / "metrics.jsonl").write_text(lines(finished_records() if records is None else records))
    (folder / "samples.jsonl").write_text(lines(samples))
    return folder


def add_checkpoint(run: Path, step: int, loss: float) -> Path:
    """A checkpoint with one small file; returns its folder."""
    folder = run / "checkpoints" / f"step-{step:06d}"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"w" * 297_000)
    manifest = Manifest.of(folder, step=step, tokens=step * 4096, losses={"validation": loss})
    (folder / MANIFEST).write_text(manifest.to_json())
    return folder


def add_evaluation(run: Path, step: int, loss: float) -> None:
    """An evaluation as `ingot evaluate` keeps it, as far as it is shown."""
    measure = {"value": loss, "low": loss - 0.1, "high": loss + 0.1}
    text = {"source": "held-out", "loss": measure, "perplexity": measure, "bits_per_byte": measure, "top1": measure}
    task = {
        "task": "piqa",
        "primary": "acc",
        "chance": 0.5,
        "metrics": {"acc": {"value": 0.61, "low": 0.5, "high": 0.7}},
    }
    told = {"model": {"step": step}, "created": f"2026-11-21T10:00:{step % 60:02}", "text": [text], "tasks": [task]}
    (run / "evaluations").mkdir(exist_ok=True)
    (run / "evaluations" / f"step-{step:06d}.json").write_text(json.dumps(told))
