"""Sweeps of tiny real runs, and what is said of made-up results."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingot.cli import run
from ingot.dashboard.study import Study, render
from ingot.sweep.grid import Grid
from ingot.sweep.results import Result, Sweep


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of three steps, a second or two."""
    draw = random.Random(1)
    (tmp_path / "text").mkdir()
    for number in range(20):
        (tmp_path / "text" / f"{number:02}.txt").write_text(" ".join(draw.choices(["law", "of", "peace"], k=200)))
    values = {
        "name": "little",
        "runs": str(tmp_path / "runs"),
        "cache": str(tmp_path / "cache"),
        "data": {"sources": [{"kind": "local", "path": str(tmp_path / "text")}]},
        "tokenizer": {"kind": "bpe", "vocabulary": 270},
        "model": {"family": "llama", "context": 16, "layers": 1, "hidden_size": 8, "heads": 1},
        "train": {"duration": "3 steps", "batch_tokens": 64, "compile": "no", "precision": "fp32"},
        "evaluation": {"every": "never"},
        "samples": {"every": "never"},
    }
    (tmp_path / "little.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "little.yaml"


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text())


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in processes of their own import what these tests import."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def test_a_sweep_is_trained_told_and_gone_on_with(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text, nowhere = recipe.parent / "text", recipe.parent / "nowhere"
    asked = ["sweep", str(recipe), f"data.sources.0.path={text},{nowhere}", "model.hidden_size=8", "--name", "paths"]
    assert run(asked) == 2
    folder = recipe.parent / "runs" / "paths"
    said = capfd.readouterr()
    assert "1 of 2 runs failed" in said.err and "nowhere" in said.err
    one, failed = told(folder)["runs"]
    assert (one["state"], failed["state"]) == ("finished", "failed") and str(nowhere) in failed["why"]
    assert one["best_loss"] > 0 and one["flops"] > 0 and one["tokens"] == 192 and one["parameters"] > 2000
    assert f"{one['best_loss']:.4f}" in said.out and "Lowest held-out loss" in said.out
    assert (folder / one["name"] / "checkpoints").is_dir()
    before = (folder / one["name"] / "metrics.jsonl").stat().st_mtime_ns
    assert run([*asked[:2], f"data.sources.0.path={text},{nowhere}", *asked[3:]]) == 2
    assert before == (folder / one["name"] / "metrics.jsonl").stat().st_mtime_ns
    assert "2 runs in" in (out := capfd.readouterr().out) and "1 to train" in out


def test_one_impossible_run_among_others_is_a_failure_and_no_end(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingot.sweep.job._run", lambda command: (3, "the machine is on fire"))
    assert run(["sweep", str(recipe), "model.hidden_size=8,7"]) == 2
    results = told(recipe.parent / "runs" / "little-sweep")["runs"]
    assert [one["state"] for one in results] == ["failed", "failed"]
    assert results[0]["why"] == "the machine is on fire" and "head_size=7 is odd" in results[1]["why"]


def test_what_no_run_can_be_is_refused_before_anything_is_made(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", str(recipe), "model.layerz=1,2"]) == 2
    assert "there is no key 'layerz'" in capfd.readouterr().err
    assert not (recipe.parent / "runs").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_sweep_that_is_interrupted_saves_and_goes_on(recipe: Path, number: int) -> None:
    command = [sys.executable, "-m", "ingot", "sweep", str(recipe), "seed=1,2", "train.duration=4000 steps"]
    folder = recipe.parent / "runs" / "little-sweep"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        metrics = folder / "seed-1" / "metrics.jsonl"
        while not (metrics.exists() and b'"train"' in metrics.read_bytes()):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        if number == signal.SIGINT:  # as a terminal does it: to all of them
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: -signal.SIGTERM}[number]
    assert [one["state"] for one in told(folder)["runs"]] == ["stopped", "waiting"]
    assert list((folder / "seed-1" / "checkpoints").glob("step-*"))


def made_up(folder: Path, assignments: list[str], loss: Any) -> Sweep:
    """A sweep whose runs have the losses that a function of their values says."""
    grid = Grid.of(assignments)
    done = Sweep(folder, "made-up", grid)
    for point in grid.points:
        size = float(point.values.get("model.layers", 1)) * 1e6
        figures = {"parameters": size, "tokens": 2e7, "flops": 6 * size * 2e7, "seconds": 60.0}
        value = loss(**{key.rpartition(".")[2]: one for key, one in point.values.items()})
        done.results.append(
            Result(
                point.name, point.values, "finished", final_loss=value, best_loss=value, bits_per_byte=1.0, **figures
            )
        )
    return done


def test_the_advice_names_the_best_the_cheap_the_edge_and_the_law(tmp_path: Path) -> None:
    def loss(layers: int, lr: float) -> float:
        return 2 + 2 * layers**-0.5 + 30 * (lr - 0.01) ** 2

    done = made_up(tmp_path / "s", ["model.layers=1,4,16,64,100", "optimizer.lr=0.01,0.02,0.04"], loss)
    advice = list(done.advice())
    assert advice[0] == "Lowest held-out loss: model.layers=100 optimizer.lr=0.01, 2.2000 nats a token."
    assert advice[1] == "optimizer.lr=0.01 is the smallest that was tried: the best may lie beyond it."
    law, _ = done.law()
    assert law["exponent"] == pytest.approx(0.5, abs=1e-2) and law["floor"] == pytest.approx(2, abs=1e-2)
    assert any("200M parameters trained alike come to 2.141" in line for line in advice)
    done.save()
    page = render(Study.read(tmp_path / "s" / "sweep.json"))
    assert "layers-100_lr-0.01" in page and "Hoffmann" in page and "http:" not in page
    assert page == (tmp_path / "s" / "report.html").read_text()


def test_seeds_are_repetitions_and_two_sizes_are_no_law(tmp_path: Path) -> None:
    done = made_up(tmp_path, ["model.layers=1,2", "seed=1,2"], lambda layers, seed: 4 - layers + seed * 0.01)
    advice = list(done.advice())
    assert "model.layers=2, 2.0150 nats a token, mean of 2 seeds, ± 0.0071" in advice[0]
    law, refusal = done.law()
    assert law is None and "2 sizes say nothing about others" in refusal and len(advice) == 1


def test_a_cheaper_run_that_is_nearly_as_good_is_named(tmp_path: Path) -> None:
    done = made_up(tmp_path, ["model.layers=1,10"], lambda layers: 3.0 if layers == 10 else 3.01)
    assert list(done.advice())[1] == "Within 1% of it at 10% of the FLOPs: model.layers=1, 3.0100."
