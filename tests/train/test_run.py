"""Whole runs: a run that was killed ends bit for bit as one that was not, and what is said about it is true."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from courses import assert_same_run, exact_records, records, weights_and_state
from hypothesis import given
from hypothesis import strategies as st

from ingot.checkpoint.store import Checkpoints
from ingot.cli import run
from ingot.engine.native import NativeEngine
from ingot.errors import UserError
from ingot.recipe.recipe import Recipe
from ingot.train import settle
from ingot.train.account import longer
from ingot.train.loop import State
from ingot.train.run import train
from ingot.train.settle import planned_steps


def start(recipe: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ingot", "train", str(recipe), *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_killed_run_ends_as_one_that_was_not(tiny, wait_for, two_threads):
    """Also where PyTorch parts its sums among threads."""
    whole, killed = tiny("whole", duration="60 steps"), tiny("killed", duration="60 steps")
    process = start(whole)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0 and "(2 threads, fp32)" in output, output
    folder = Recipe.load(killed).folder
    for until in (6, 30):  # killed twice, each time somewhere after that checkpoint
        process = start(killed)
        wait_for(lambda until=until: (folder / f"checkpoints/step-{until:06}").exists(), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(killed)
    output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output
    assert "going on from step" in output and "compil" not in output
    assert_same_run(Recipe.load(whole).folder, folder, 60)


def test_an_interrupted_run_saves_says_how_to_go_on_and_goes_on(tiny, wait_for):
    unsaved = "evaluation.every=never"  # an evaluation saves as well, perhaps just before the signal comes
    whole = train(Recipe.load(tiny("whole", duration="100 steps", save_every="never"), [unsaved]))
    recipe = tiny("stopped", duration="100 steps", save_every="never")
    folder = Recipe.load(recipe).folder
    process = start(recipe, unsaved)
    wait_for(lambda: (folder / "metrics.jsonl").exists() and len(records(folder)) > 8, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=400)[0]
    assert process.returncode == 130, output
    assert output.rstrip().endswith(f"report:    {folder / 'report.html'}"), "nothing undoes the good news"
    assert "the same command goes on" in output
    assert len(list((folder / "checkpoints").glob("step-*"))) == 1
    train(Recipe.load(recipe, [unsaved]))
    assert_same_run(whole, folder, 100)


def test_accumulated_batches_are_the_whole_batch(tiny):
    whole = train(Recipe.load(tiny("whole", duration="8 steps"), ["loss=full"]))
    split = train(Recipe.load(tiny("split", duration="8 steps"), ["loss=full", "memory.micro_batch=2"]))
    for one, other in zip(exact_records(whole), exact_records(split), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_a_run_that_is_complete_stays_as_it_is(tiny):
    recipe = Recipe.load(tiny())
    folder = train(recipe)
    before = exact_records(folder), weights_and_state(folder, 24)
    train(recipe)
    assert (exact_records(folder), weights_and_state(folder, 24)) == before


def test_a_longer_duration_goes_on(tiny):
    folder = train(Recipe.load(tiny(duration="12 steps")))
    train(Recipe.load(tiny(duration="18 steps")))
    assert [record["step"] for record in exact_records(folder) if "gradient_norm" in record] == list(range(1, 19))


def test_another_model_under_the_same_name_is_refused_and_fresh_keeps_the_old_one(tiny):
    recipe = tiny()
    folder = train(Recipe.load(recipe, ["train.duration=6 steps"]))
    with pytest.raises(UserError, match=r"this run was begun with model\.layers=2, not 3"):
        train(Recipe.load(recipe, ["model.layers=3"]))
    train(Recipe.load(recipe, ["train.duration=6 steps", "model.layers=3"]), fresh=True)
    assert (folder.with_name("tiny-old-1") / "checkpoints" / "step-000006").is_dir()


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tiny, capsys):
    whole = train(Recipe.load(tiny("whole")))
    recipe = Recipe.load(tiny("damaged"))
    folder = train(recipe)
    weights = folder / "checkpoints/step-000024/model/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    capsys.readouterr()
    train(recipe)
    output = capsys.readouterr().out
    assert "step-000024" in output and "model.safetensors" in output
    assert "going on from step 18" in output
    assert exact_records(folder) == exact_records(whole)


def test_text_that_vanished_does_not_stop_a_run_that_has_its_tokens(tiny, text):
    recipe = tiny()
    train(Recipe.load(recipe, ["train.duration=6 steps"]))
    for path in text.iterdir():
        path.unlink()
    folder = train(Recipe.load(recipe, ["train.duration=12 steps"]))
    assert (folder / "checkpoints/step-000012").is_dir()


def test_minutes_are_settled_in_steps_by_a_probe(tiny):
    recipe = Recipe.load(tiny(duration="0.02 minutes"))
    folder = train(recipe)
    steps = Recipe.load(folder / "recipe.yaml").train.steps
    assert steps == [record["step"] for record in exact_records(folder)][-1]


def test_the_peak_is_measured_after_the_first_step_and_shares_of_it_follow(tiny):
    folder = train(Recipe.load(tiny(duration="6 steps")))
    kinds = [record["kind"] for record in records(folder)]
    assert kinds[:5] == ["start", "train", "peak", "system", "train"]
    peak = records(folder)[2]["matmul_peak"]
    shares = [record.get("share_of_peak") for record in records(folder, "train")]
    assert peak > 0 and shares[0] is None and all(share > 0 for share in shares[1:])
    assert f"{peak / 1e9:,.0f} GFLOP/s" in (folder / "report.html").read_text()


def test_a_run_that_goes_on_says_that_it_loads_what_it_compiled(tiny, monkeypatch, capsys):
    kept: list[Path] = []
    monkeypatch.setattr(settle, "compile_kept", lambda engine, batches, folder, done: kept.append(folder) or "")
    recipe = tiny(compile="yes")
    train(Recipe.load(recipe, ["train.duration=6 steps"]))
    assert "compiling the model (minutes at first" in capsys.readouterr().out
    cache = Recipe.load(recipe).cache
    train(Recipe.load(recipe, ["train.duration=12 steps"]))
    assert f"loading the compiled model (from {cache / 'compiled'}" in capsys.readouterr().out.replace("\n", " ")
    assert kept == [cache / "compiled"] * 2


def test_a_compiler_that_fails_costs_a_line_and_not_the_run(tiny, monkeypatch, capsys):
    monkeypatch.setattr(settle, "compile_kept", lambda *_: "no C++ compiler")
    folder = train(Recipe.load(tiny(compile="yes"), ["train.duration=6 steps"]))
    assert "going on without compilation: no C++ compiler" in capsys.readouterr().out
    assert Recipe.load(folder / "recipe.yaml").train.compile == "no"


def test_a_changed_mind_before_the_first_checkpoint_is_no_offence(tiny):
    recipe = tiny()
    with pytest.raises(UserError, match="there is no"):
        train(Recipe.load(recipe, ["data.sources.0.path=nowhere/*.txt"]))
    train(Recipe.load(recipe, ["train.duration=6 steps"]))


def test_a_source_that_moved_is_the_same_source(tiny, text):
    recipe = tiny()
    train(Recipe.load(recipe, ["train.duration=6 steps"]))
    moved = text.rename(text.with_name("moved"))
    folder = train(Recipe.load(recipe, ["train.duration=12 steps", f"data.sources.0.path={moved}"]))
    assert (folder / "checkpoints/step-000012").is_dir()


def test_a_shorter_duration_than_what_was_trained_is_refused(tiny):
    recipe = tiny()
    train(Recipe.load(recipe, ["train.duration=12 steps"]))
    with pytest.raises(UserError, match="6 steps are 6 steps, and this run has made 12 already"):
        train(Recipe.load(recipe, ["train.duration=6 steps"]))


def test_longer_minutes_go_by_the_speed_so_far(tiny):
    recipe = tiny()
    folder = train(Recipe.load(recipe, ["train.duration=12 steps"]))
    state = json.loads((folder / "checkpoints/step-000012/train/state.json").read_text())["state"]
    minutes = 2 * state["seconds"] / 60
    train(Recipe.load(recipe, [f"train.duration={minutes:.9f} minutes"]))
    assert Recipe.load(folder / "recipe.yaml").train.steps == 24


def last_said(folder: Path) -> list[str]:
    """What the last process said of the run, without the times."""
    lines = [line.partition(" ")[2] for line in (folder / "log.txt").read_text().splitlines()]
    return lines[max(number for number, line in enumerate(lines) if line.startswith(f"{folder.name}: ")) :]


@pytest.mark.parametrize("duration", ["0.01 minutes", "6 steps"])
def test_a_complete_run_says_so_and_how_it_is_trained_longer_which_works(tiny, duration: str):
    folder = train(Recipe.load(tiny(), [f"train.duration={duration}", "train.batch_tokens=128"]))
    assert longer_of(folder)
    train(Recipe.load(folder / "recipe.yaml"))
    said = last_said(folder)
    step = records(folder, "train")[-1]["step"]
    assert said[2] == f"this run is complete, with {step} steps" and said[3].startswith("try it: ")
    assert not any("going on" in line for line in said)
    assert run(longer_of(folder)) == 0
    assert f"going on from step {step}" in last_said(folder)
    assert records(folder, "train")[-1]["step"] > step


def longer_of(folder: Path) -> list[str]:
    """The arguments of the command that was told last."""
    (command,) = [line.removeprefix("longer:") for line in last_said(folder) if line.startswith("longer:")]
    program, *arguments = shlex.split(command)
    assert program == "ingot"
    return arguments


@given(st.floats(0.5, 100), st.integers(1, 10_000), st.floats(1, 100_000))
def test_longer_is_longer_than_the_time_that_was_taken(minutes: float, step: int, seconds: float):
    state, recipe = (
        State(step=step, seconds=seconds),
        Recipe.load("demo").with_training(duration=f"{minutes:.3f} minutes"),
    )
    *_, override = shlex.split(longer(recipe, state))
    more = recipe.with_training(duration=override.removeprefix("train.duration="))
    steps = planned_steps(more, state, epoch_tokens=1, parameters=1)
    assert steps and steps >= 2 * step


def test_a_run_that_can_not_become_longer_is_told_no_command():
    recipe = Recipe.load("demo", ["early_stopping.patience=1"])
    assert longer(recipe, State(step=9)) and not longer(recipe, State(step=9, waited=1))


def test_stages_take_the_blocks_one_after_another_even_when_the_run_grows(tiny):
    stages = "train.stages=[{share: 0.5, length: 8, batch_tokens: 128}, {share: 0.5, length: 32, batch_tokens: 256}]"
    folder = train(Recipe.load(tiny(), ["train.duration=10 steps", stages]))
    steps = records(folder, "train")
    assert [record["length"] for record in steps] == [8] * 5 + [32] * 5
    train(Recipe.load(tiny(), ["train.duration=20 steps", stages]))
    state = json.loads((folder / "checkpoints/step-000020/train/state.json").read_text())["state"]
    assert state["blocks"] == (5 * 128 + 5 * 256 + 10 * 256) // 32


def test_nothing_held_out_is_said_and_trains(tiny, capsys):
    folder = train(Recipe.load(tiny(), ["data.held_out.share=0"]))
    assert "nothing is held out" in capsys.readouterr().out
    assert not records(folder, "validation")
    train(Recipe.load(tiny(), ["data.held_out.share=0"]))
    assert "this run is complete" in capsys.readouterr().out


def test_a_prompt_longer_than_the_context_is_refused_before_training(tiny):
    with pytest.raises(UserError, match=r"samples\.prompts: a prompt has"):
        train(Recipe.load(tiny(), [f"samples.prompts=[{'peace ' * 50}]"]))


def test_a_run_that_learns_nothing_from_its_steps_ends_and_keeps_the_last_checkpoint(tiny, monkeypatch):
    recipe = Recipe.load(tiny())
    real = NativeEngine.step

    def poisoned(self: NativeEngine, batches: Any, *, step: int, **rest: Any) -> Any:
        result = real(self, batches, step=step, **rest)
        return dataclasses.replace(result, applied=False) if step >= 15 else result

    monkeypatch.setattr(NativeEngine, "step", poisoned)
    with pytest.raises(UserError, match="at step 18, the last of 3 updates left out in a row; going back did not help"):
        train(recipe)
    assert [path.name for path in sorted((recipe.folder / "checkpoints").iterdir())] == ["step-000006", "step-000012"]
    assert (recipe.folder / "report.html").exists()


def test_the_last_checkpoint_can_be_the_best(tiny):
    best = Checkpoints(train(Recipe.load(tiny()))).best()
    assert best and best.step == 24


def test_half_a_launcher_is_refused_in_one_line(tiny, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK is not set; start several processes with torchrun"):
        train(Recipe.load(tiny()))


def test_two_processes_do_not_train_one_run(tiny, wait_for):
    recipe = tiny(duration="100000 steps")
    folder = Recipe.load(recipe).folder
    process = start(recipe)
    wait_for(lambda: (folder / "metrics.jsonl").exists(), process)
    with pytest.raises(UserError, match="another process is training this run"):
        train(Recipe.load(recipe))
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def one_tokenizer_thread() -> Iterator[None]:
    """The tokenizers library warns about forks after threads; the tests' subprocesses inherit this."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    yield
    del os.environ["TOKENIZERS_PARALLELISM"]
