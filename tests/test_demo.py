"""The demo: two runs, the second from the first, and each gone on with alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from ingot.demo import demo, recipes
from ingot.errors import Stopped, UserError
from ingot.train.loop import Loop, State

SHORT = ["model.layers=1", "model.hidden_size=32", "model.heads=2", "model.context=64", "tokenizer.vocabulary=400"]
SHORT += ["train.batch_tokens=128", "train.duration=3 steps", "evaluation.max_tokens=200", "samples.max_new_tokens=4"]
SHORT += ["train.compile=no", "train.precision=fp32", "data.held_out.share=0.1"]
TALK = ["train.batch_tokens=128", "train.duration=4 steps", "train.compile=no", "train.precision=fp32"]
TALK += ["evaluation.max_tokens=200", "samples.max_new_tokens=4", "optimizer.lr=0.001"]


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """Both parts in seconds, on a few texts and talks."""
    (tmp_path / "text").mkdir()
    for number in range(20):
        (tmp_path / "text" / f"{number}.txt").write_text(f"The state of the union is number {number}. " * 9)
    talks = [{"messages": ["Hello!", f"Number {number}."] * (1 + number % 9)} for number in range(40)]
    (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, talks)))
    own = [f"data.sources=[{{kind: local, path: {tmp_path / 'text'}}}]", f"runs={tmp_path}/runs", f"cache={tmp_path}/c"]
    other = [f"data.sources=[{{kind: conversations, path: {tmp_path / 'talks.jsonl'}}}]", *TALK]
    return [*SHORT, *own, *(f"chat.{one}" for one in other)]


def test_both_parts_are_made_told_and_not_made_again(overrides: list[str], tmp_path: Path, capsys):
    demo(overrides)
    said = capsys.readouterr().out
    assert "starting from demo@best" in said and said.count("> Have you seen any good movies?") == 1
    assert "ingot chat demo-chat" in said.splitlines()[-1]
    page = (tmp_path / "runs/demo-chat/report.html").read_text()
    assert "Have you seen any good movies?</b><br>" in page and "ingot chat demo-chat" in page
    checkpoints = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/checkpoints/*/manifest.json")}
    demo(overrides)
    assert {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/checkpoints/*/manifest.json")
    } == checkpoints
    again = capsys.readouterr().out
    assert again.count("this run is complete") == 2
    assert again.splitlines()[-10:] == said.splitlines()[-10:]


@pytest.mark.parametrize("run", ["demo", "demo-chat"])
def test_stopped_anywhere_the_same_command_goes_on(overrides: list[str], tmp_path: Path, monkeypatch, capsys, run: str):
    step = Loop._step

    def interrupted(self: Loop, state: State) -> None:
        step(self, state)
        if self.recipe.name == run and state.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "_step", interrupted)
        demo(overrides)
    assert not (tmp_path / "runs/demo-chat").exists() or run == "demo-chat"
    capsys.readouterr()
    demo(overrides)
    said = capsys.readouterr().out
    assert "going on from step 2" in said and "> Have you seen any good movies?" in said


def test_the_second_part_takes_name_folders_and_model_of_the_first():
    first, second = recipes(["name=other", "runs=there", "model.layers=2", "chat.optimizer.lr=0.5"])
    assert (second.name, second.runs, second.model) == ("other-chat", first.runs, first.model)
    assert second.optimizer.lr == 0.5 and first.optimizer.lr != 0.5
    with pytest.raises(UserError, match="did you mean 'optimizer'"):
        recipes(["chat.optimiser.lr=0.5"])
