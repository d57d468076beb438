"""A tiny run that the tests of the training room share."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = ["the", "of", "and", "people", "nation", "state", "union", "congress", "peace", "war", "law", "great", "year"]

SETTLED = {"compile": "no", "precision": "fp32"}  # what a run would measure: two runs in a test must not differ in it


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with 40 short made-up documents."""
    folder = tmp_path / "text"
    folder.mkdir()
    draw = random.Random(1)
    for number in range(40):
        words = draw.choices(WORDS, k=draw.randint(20, 400))
        (folder / f"{number:02}.txt").write_text(" ".join(words) + ".\n")
    return folder


@pytest.fixture
def tiny(tmp_path: Path, text: Path) -> Callable[..., Path]:
    """Writes a recipe file for a run of seconds; keyword arguments replace parts of its `train`."""

    def write(name: str = "tiny", **train: Any) -> Path:
        values = {
            "name": name,
            "runs": str(tmp_path / "runs"),
            "cache": str(tmp_path / "cache"),
            "data": {"sources": [{"kind": "local", "path": str(text)}]},
            "tokenizer": {"kind": "bpe", "vocabulary": 300},
            "model": {"family": "qwen3", "context": 32, "layers": 2, "hidden_size": 32, "heads": 2},
            "optimizer": "muon",
            "loss": {"kind": "sampled", "drawn": 64},
            "schedule": "wsd",
            "train": {
                "duration": "24 steps",
                "batch_tokens": 256,
                "save_every": "6 steps",
                "compile": "no",
                "precision": "fp32",
                **train,
            },
            "evaluation": {"every": "12 steps", "max_tokens": 500},
            "samples": {"every": "12 steps", "prompts": ["the"], "max_new_tokens": 5},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(values))
        return path

    return write
