"""Whole runs: a run that was killed ends bit for bit as one that was not, and what is said about it is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingot.errors import UserError
from ingot.recipe import Recipe
from ingot.train.run import train

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


def start(recipe: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ingot", "train", str(recipe), *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


def test_a_killed_run_ends_as_one_that_was_not(tiny):
    whole = train(Recipe.load(tiny("whole", duration="60 steps")))
    killed = tiny("killed", duration="60 steps")
    folder = Recipe.load(killed).folder
    for until in (6, 30):  # killed twice, each time somewhere after that checkpoint
        process = start(killed)
        wait_for(lambda until=until: (folder / f"checkpoints/step-{until:06}").exists(), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(killed)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert "going on from step" in output
    assert_same_run(whole, folder, 60)


def test_an_interrupted_run_saves_says_how_to_go_on_and_goes_on(tiny):
    whole = train(Recipe.load(tiny("whole", duration="60 steps", save_every="never")))
    recipe = tiny("stopped", duration="60 steps", save_every="never")
    folder = Recipe.load(recipe).folder
    process = start(recipe)
    wait_for(lambda: (folder / "metrics.jsonl").exists() and len(records(folder)) > 8, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "the same command goes on" in output
    assert len(list((folder / "checkpoints").glob("step-*"))) == 1
    train(Recipe.load(recipe))
    assert_same_run(whole, folder, 60)


def test_accumulated_batches_are_the_whole_batch(tiny):
    whole = train(Recipe.load(tiny("whole", duration="8 steps")))
    split = train(Recipe.load(tiny("split", duration="8 steps", micro_tokens=64)))
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
    train(Recipe.load(recipe, ["train.duration=12 steps"]))


def test_minutes_are_settled_in_steps_by_a_probe(tiny):
    recipe = Recipe.load(tiny(duration="0.02 minutes"))
    folder = train(recipe)
    steps = Recipe.load(folder / "recipe.yaml").train.steps
    assert steps == [record["step"] for record in exact_records(folder)][-1]


def test_two_processes_do_not_train_one_run(tiny):
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
