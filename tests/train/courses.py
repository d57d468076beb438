"""What a run left: its records and checkpoints, and whether two runs are bit for bit the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXACT = ("step", "tokens", "loss", "gradient_norm", "lr", "perplexity", "bits_per_byte")  # the rest measures time


def records(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def exact_records(folder: Path) -> list[dict[str, Any]]:
    kept = [record for record in records(folder) if record["kind"] in ("train", "validation")]
    return [{key: record[key] for key in EXACT if key in record} for record in kept]


def weights_and_state(folder: Path, step: int) -> dict[str, bytes]:
    checkpoint = folder / "checkpoints" / f"step-{step:06}"
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(checkpoint)): path.read_bytes() for path in files}


def assert_same_run(one: Path, other: Path, step: int) -> None:
    assert exact_records(one) == exact_records(other)
    assert records(one, "samples.jsonl") == records(other, "samples.jsonl")
    left, right = weights_and_state(one, step), weights_and_state(other, step)
    assert left.keys() == right.keys()
    for name, content in left.items():
        if "seconds" not in name and name != "train/state.json":  # which holds the seconds that training took
            assert content == right[name], name
