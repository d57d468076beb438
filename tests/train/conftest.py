"""A tiny run that the tests of the training room share."""

from __future__ import annotations

import functools
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Faults
from phases import Ended

from ingot.train import account, parts

WORDS = ["the", "of", "and", "people", "nation", "state", "union", "congress", "peace", "war", "law", "great", "year"]

SETTLED = {"compile": "no", "precision": "fp32"}  # what a run would measure: two runs in a test must not differ in it


@pytest.fixture(autouse=True, scope="session")
def measured_once() -> Iterator[None]:
    """What this machine can do is measured for the first run of all; half a second in each would be a fifth of it."""
    with pytest.MonkeyPatch.context() as patch:
        for room, name in ((parts, "matmul_peak"), (account, "copy_rate")):
            patch.setattr(room, name, functools.cache(getattr(room, name)))
        yield


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


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Faults for the steps of runs in this process."""
    return Faults(monkeypatch)


@pytest.fixture(scope="module")
def signalled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ended]]:
    """Trains a recipe in a process of its own, which gets a signal in the middle of a phase; see phases.py."""
    output = tmp_path_factory.mktemp("phases") / "output.txt"
    command = [sys.executable, str(Path(__file__).with_name("phases.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def ask(recipe: Path, *overrides: str, **request: Any) -> Ended:
            request = {"phase": "", "nth": 1, "signal": signal.SIGTERM, "delay": 0.0} | request
            request |= {"recipe": str(recipe), "overrides": overrides, "output": str(output)}
            assert server.stdin and server.stdout
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            return Ended(**json.loads(server.stdout.readline()))

        yield ask
        server.stdin.close()
