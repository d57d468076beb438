"""A run that streams its text: what it trains on is exact across a stop, and what can't be streamed is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from courses import losses
from faults import interrupted

from ingot.checkpoint.state import load_state
from ingot.checkpoint.store import Checkpoints
from ingot.data.live.loader import LiveLoader
from ingot.errors import UserError
from ingot.hub import Unreachable
from ingot.prepare import prepare
from ingot.recipe.recipe import Recipe
from ingot.train.run import train

QUIET = {"evaluation": {"every": "never"}, "samples": {"every": "never", "prompts": []}}


@pytest.fixture
def streamed(tiny, text: Path) -> Callable[..., Recipe]:
    """A recipe of two sources of different weight that streams; keyword arguments replace parts of its `data`."""

    def make(name: str = "live", train: dict[str, Any] | None = None, **data: Any) -> Recipe:
        path = tiny(name, **{"duration": "8 steps", "save_every": "3 steps", **(train or {})})
        values = json.loads(path.read_text())
        sources = [{"kind": "local", "path": str(text), "weight": weight} for weight in (1, 2)]
        values |= QUIET | {"data": {"sources": sources, "live": True, **data}}
        path.write_text(json.dumps(values))
        return Recipe.load(path)

    return make


def test_a_run_that_was_stopped_or_lost_its_source_goes_on_bitwise(streamed, monkeypatch, capsys):
    whole = train(streamed("whole"))
    said = capsys.readouterr().out
    assert "text streamed live; " in said and "mixture: 32.8% " in said  # 21 of 64 blocks
    assert "held out: 4 documents" in said  # of 80
    seen = interrupted(monkeypatch, after=5)
    halved = streamed("halved")
    with pytest.raises(KeyboardInterrupt):
        train(halved)
    folder = train(halved)
    assert seen == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]
    assert losses(whole) == losses(folder) and len(losses(folder)) == 8
    tensors = [(Checkpoints(run).latest().model / "model.safetensors").read_bytes() for run in (whole, folder)]
    assert tensors[0] == tensors[1]

    monkeypatch.undo()
    recipe, taken = streamed("cut", {"save_every": "never"}), []
    take = LiveLoader.take

    def failing(self: LiveLoader, *step: int) -> Any:
        taken.append(step)
        if len(taken) == 6:
            raise Unreachable("the hub can't be reached")
        return take(self, *step)

    monkeypatch.setattr(LiveLoader, "take", failing)
    with pytest.raises(Unreachable):
        train(recipe)
    found = Checkpoints(recipe.folder).latest()
    assert found and found.step == 5 and load_state(found.path / "train")["data"]["blocks"] == 40


@pytest.mark.parametrize(
    ("train", "data", "line"),
    [
        ({"duration": "2 epochs"}, {}, "streaming, nobody knows how long an epoch is; give steps"),
        ({"save_every": "epoch"}, {}, "streaming, nobody knows how long an epoch is; give steps"),
        ({}, {"clean": {"duplicates": "exact"}}, "clean.duplicates takes all of the text at once"),
        ({}, {"sources": [{"kind": "local", "path": "x", "max_bytes": 9}]}, "x has a limit, which needs a token cache"),
    ],
)
def test_what_needs_a_token_cache_is_refused(streamed, train, data, line):
    with pytest.raises(UserError, match=line):
        streamed(train=train, **data)


def test_preparing_makes_what_a_streamed_run_needs(streamed, capsys, text: Path):
    recipe = streamed()
    cache = prepare(recipe)
    assert cache.held_out.tokens and not cache.train.tokens
    assert "the rest is streamed while training" in capsys.readouterr().out
    train(recipe)
    assert "tokenizer: training" not in capsys.readouterr().out
    (text / "more.txt").write_text("the of and peace")
    with pytest.raises(UserError, match="the text is not the one that this run was begun with; bring the text back"):
        train(streamed(train={"duration": "9 steps"}))
