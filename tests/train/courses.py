"""What a run left: its records and checkpoints, and whether two runs are bit for bit the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXACT = ("step", "tokens", "loss", "gradient_norm", "lr", "perplexity", "bits_per_byte")  # the rest measures time


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def records(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """What a run recorded: all of it, or what is of one of the `kinds`."""
    return [record for record in lines(folder / "metrics.jsonl") if not kinds or record["kind"] in kinds]


def exact_records(folder: Path) -> list[dict[str, Any]]:
    found = records(folder, "train", "validation")
    return [{key: record[key] for key in EXACT if key in record} for record in found]


def losses(folder: Path) -> list[float]:
    """Of each step, in order."""
    return [record["loss"] for record in records(folder, "train")]


def weights_and_state(folder: Path, step: int) -> dict[str, bytes]:
    checkpoint = folder / "checkpoints" / f"step-{step:06}"
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(checkpoint)): path.read_bytes() for path in files}


def assert_same_run(one: Path, other: Path, step: int) -> None:
    assert exact_records(one) == exact_records(other)
    assert lines(one / "samples.jsonl") == lines(other / "samples.jsonl")
    left, right = weights_and_state(one, step), weights_and_state(other, step)
    assert left.keys() == right.keys()
    for name, content in left.items():
        if "seconds" not in name and name != "train/state.json":  # which holds the seconds that training took
            assert content == right[name], name
