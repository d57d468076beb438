"""A whole run and its mirrors: after a Ctrl-C and a resume, TensorBoard and W&B tell what metrics.jsonl tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from courses import records

from ingot.recipe.recipe import Recipe
from ingot.track.tracking import points


def test_a_run_that_was_interrupted_has_each_figure_once_everywhere(tiny, wait_for, tmp_path: Path):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs ingot[track]")
    pytest.importorskip("wandb", reason="needs ingot[track]")
    path = tiny(duration="16 steps", save_every="never")
    track = ["tensorboard", {"kind": "wandb", "offline": True, "checkpoints": "last"}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"track": track}))
    run = Recipe.load(path).folder
    command = [sys.executable, "-m", "ingot", "train", str(path)]
    environment = os.environ | {"WANDB_DATA_DIR": str(tmp_path / "wandb")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    begun = subprocess.Popen(command, start_new_session=True, **pipes)
    metrics = run / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.read_text().count("gradient_norm") >= 4, begun)
    os.killpg(begun.pid, signal.SIGINT)  # as a terminal does: W&B's process hears it, too
    output = begun.communicate(timeout=200)[0]
    assert begun.returncode == 130, output
    done = subprocess.run(command, timeout=300, **pipes)
    assert done.returncode == 0, done.stdout
    assert "failed" not in output + done.stdout and "Traceback" not in output + done.stdout

    found = records(run)
    told = [(tag, record["step"], value) for record in found for tag, value in points(record).items()]
    assert sum(tag == "train/loss" for tag, _, _ in told) == 16
    kinds = {record["kind"] for record in found} - {"outlook"}  # a quick run has none
    assert kinds == {"start", "train", "peak", "system", "save", "validation", "end"}
    events = board.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    shown = [(tag, event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    assert sorted(shown) == [(tag, step, pytest.approx(value, rel=1e-6)) for tag, step, value in sorted(told)]
    assert len(list(run.glob("wandb/offline-run-*"))) == 1
    assert list((tmp_path / "wandb" / "artifacts" / "staging").iterdir())  # the model, until `wandb sync` sends it
