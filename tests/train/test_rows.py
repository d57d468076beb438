"""The rows of a run: mixtures that change on the way, packed documents, and what a resume may not change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from courses import losses
from faults import interrupted

from ingot.data.blocks import Bins, Slices
from ingot.data.prepare import prepare
from ingot.distributed import World
from ingot.errors import UserError
from ingot.recipe.recipe import Recipe
from ingot.train.rows import Rows
from ingot.train.run import train
from ingot.train.timetable import Timetable

ALONE = World.alone("cpu")

STAGES = [
    {"share": 0.5, "length": 16, "batch_tokens": 256, "weights": [3, 1]},
    {"share": 0.5, "length": 32, "batch_tokens": 256, "weights": [1, 4]},
]


@pytest.fixture
def two_sources(tiny, text: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe of two sources; keyword arguments replace parts of its `data`."""
    other = tmp_path / "other"
    other.mkdir()
    for file in sorted(text.iterdir())[::4]:
        (other / file.name).write_text("peace " + file.read_text())

    def make(name: str = "two", train: dict[str, Any] | None = None, **data: Any) -> Recipe:
        path = tiny(name, **(train or {}))
        values = json.loads(path.read_text())
        sources = [{"kind": "local", "path": str(folder)} for folder in (text, other)]
        values |= QUIET | {"data": {"sources": sources, **data}}
        path.write_text(json.dumps(values))
        return Recipe.load(path)

    return make


def weighted(recipe: Recipe, *weights: float | None) -> Recipe:
    """`recipe` with weights for its sources."""
    values = recipe.to_dict()
    for source, weight in zip(values["data"]["sources"], weights, strict=True):
        source["weight"] = weight
    return Recipe.model_validate(values)


QUIET = {"evaluation": {"every": "never"}, "samples": {"every": "never", "prompts": []}}


def test_a_stopped_run_of_a_changing_mixture_ends_as_one_that_was_not(two_sources, monkeypatch, capsys):
    short = {"stages": STAGES, "duration": "8 steps", "save_every": "3 steps"}
    whole = train(two_sources("whole", short, packing="best_fit"))
    said = capsys.readouterr().out
    assert "best-fit packing: " in said
    assert "mixture: 46.9% " in said  # 24 of the first 32 blocks, and 6 of the 6.4 that are due of the second 32
    seen = interrupted(monkeypatch, after=5)
    halved = two_sources("halved", short, packing="best_fit")
    with pytest.raises(KeyboardInterrupt):
        train(halved)
    folder = train(halved)
    assert seen == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]  # saved after step 3, and the mixture changes after step 4
    assert losses(whole) == losses(folder) and len(losses(folder)) == 8


def test_a_changing_mixture_keeps_its_duration(two_sources):
    recipe = two_sources(train={"stages": STAGES, "duration": "2 steps"})
    train(recipe)
    with pytest.raises(UserError, match=r"begun with train\.duration=2 steps, not 3 steps"):
        train(recipe.with_training(duration="3 steps"))
    train(weighted(two_sources("steady", {"duration": "2 steps"}), 1, 2))
    train(weighted(two_sources("steady", {"duration": "3 steps"}), 1, 2))  # nothing of its past depends on the end


def test_rows_follow_the_recipe(two_sources):
    plain = two_sources()
    cache = prepare(plain.data.sources, plain.data.held_out, plain.tokenizer, plain.cache, lambda line: None)[1]
    timetable = Timetable(24, (plain.stages[0],))
    rows = Rows(plain, cache, ALONE)
    assert rows.epoch_tokens == cache.train.tokens
    assert [type(blocks) for blocks in rows.blocks] == [Slices]
    assert list(rows.described(timetable)) == []

    rows = Rows(two_sources(packing="best_fit"), cache, ALONE)
    assert [type(blocks) for blocks in rows.blocks] == [Bins]
    assert rows.epoch_tokens == rows.blocks[0].count * 32 >= cache.train.tokens
    assert [line.split(":")[0] for line in rows.described(timetable)] == ["best-fit packing"]

    rows = Rows(weighted(plain, 0.7, 0.3), cache, ALONE)
    assert len(rows.blocks) == 2 and rows.epoch_tokens == cache.train.tokens
    sets, _ = rows.order(timetable).places(0, 192)
    assert abs((sets == 0).sum() - 0.7 * 192) < 1
    (line,) = rows.described(timetable)
    assert line.startswith("mixture: 69.8% ") and " epochs), 30.2% " in line

    staged = two_sources(train={"stages": STAGES})
    timetable = Timetable(24, tuple(staged.stages))
    sets, _ = Rows(staged, cache, ALONE).order(timetable).places(0, 192)
    assert (sets[:96] == 0).sum() == 72 and abs((sets[96:] == 0).sum() - 96 / 5) < 1


@pytest.mark.parametrize(
    ("weights", "stages", "line"),
    [
        ((1, None), [], "1 of 2 sources have a weight; give one to all, or to none"),
        ((None, None), [[1, 2], []], "stage 2 of train.stages has 0 weights for 2 sources"),
        ((1, 2), [[1, 2, 3], []], "stage 1 of train.stages has 3 weights for 2 sources"),
        ((None, None), [[1, -1], [0, 0]], "the weights 1, -1 give no shares"),
        ((1, 0.87654321), [], "the weights 1, 0.87654321 have no simple proportion"),
    ],
)
def test_weights_that_make_no_mixture_are_refused(two_sources, weights, stages, line):
    values = [{"share": 1 / len(stages), "length": 32, "batch_tokens": 256, "weights": own} for own in stages]
    with pytest.raises((UserError, ValueError), match=line):
        weighted(two_sources(train={"stages": values} if stages else None), *weights)
