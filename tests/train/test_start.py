"""A run that starts from another model: with its function, its tokenizer, and whatever shape it grows into."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from courses import records

from ingot.checkpoint.store import Checkpoints
from ingot.distributed import World
from ingot.errors import UserError
from ingot.model.huggingface import load_architecture, load_model
from ingot.prepare import prepare
from ingot.recipe.recipe import Recipe
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.train.folder import begin
from ingot.train.parts import Parts
from ingot.train.run import train

QUICK = ["samples.every=never", "evaluation.every=never", "train.save_every=never", "train.duration=3 steps"]
LARGER = ["model.layers=3", "model.hidden_size=48", "model.heads=3", "model.head_size=16"]


@pytest.fixture
def small(tiny: Callable) -> Path:
    """The folder of a run that others start from; its tokenizer is not one that their recipe would train."""
    return train(Recipe.load(tiny("small"), [*QUICK, "tokenizer.vocabulary=290"]))


def last(run: Path) -> Path:
    found = Checkpoints(run).latest()
    assert found
    return found.model


def test_a_run_starts_from_a_smaller_model_and_goes_on_as_any_other(tiny: Callable, small: Path, capsys):
    recipe = Recipe.load(tiny("large"), [*QUICK, *LARGER, "start=small@latest"])
    made = Parts(begin(recipe), World.alone("cpu"))
    said = capsys.readouterr().out.replace("\n", " ")
    assert "starting from small@latest, grown: layers 2 → 3, hidden_size 32 → 48, heads 2 → 3" in said
    tokens = torch.arange(32)[None]
    begun = load_model(last(small)).eval()
    with torch.no_grad():
        torch.testing.assert_close(made.engine.model.eval()(tokens), begun(tokens), rtol=1e-5, atol=1e-5)
    large = train(recipe)
    manifest = Checkpoints(large).all()[-1].manifest
    assert manifest.parent == str(last(small).parent)
    assert Tokenizer.load(last(large)).fingerprint == Tokenizer.load(last(small)).fingerprint
    assert load_architecture(last(large)).layers == 3
    for path in sorted(small.rglob("*"), reverse=True):  # the model that it came from is needed no more
        path.unlink() if path.is_file() else path.rmdir()
    train(Recipe.load(tiny("large"), [*QUICK, *LARGER, "start=small@latest", "train.duration=5 steps"]))
    assert Checkpoints(large).all()[-1].step == 5


def test_the_first_loss_is_that_of_the_model_it_starts_from(tiny: Callable, small: Path):
    """Before any update, with a change of shape and without one, on the same rows."""
    again = [*QUICK, "train.duration=1 step"]
    plain = train(Recipe.load(tiny("plain"), [*again, "start=small"]))
    grown = train(Recipe.load(tiny("grown"), [*again, *LARGER, "start=small"]))
    losses = [records(run)[1]["loss"] for run in (plain, grown)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_prepare_makes_the_cache_of_the_model_to_start_from(tiny: Callable, small: Path):
    cache = prepare(Recipe.load(tiny("large"), [*LARGER, "start=small"]))
    assert cache.fingerprint == Checkpoints(small).all()[-1].manifest.lineage["data"]


def test_what_does_not_fit_is_refused_in_one_line(tiny: Callable, small: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no model 'smal'; did you mean 'small'\?"):
        train(Recipe.load(tiny("other"), [*QUICK, "start=smal"]))
    with pytest.raises(UserError, match=r"model.hidden_size: a model with hidden_size=32 can't grow into one with 16"):
        train(Recipe.load(tiny("other"), [*QUICK, "start=small", "model.hidden_size=16"]))
    with pytest.raises(UserError, match=r"model.vocabulary: a model with vocabulary=290 can't grow into one with 400"):
        train(Recipe.load(tiny("other"), [*QUICK, "start=small", "model.vocabulary=400"]))
    content = json.dumps(json.loads((last(small) / "tokenizer.json").read_text()))
    (tmp_path / "tokenizer.json").write_text(content.replace('"<|system|>"', '"<|other|>"'))
    with pytest.raises(UserError, match=r"tokenizer: the recipe names another tokenizer than that of the model to st"):
        train(Recipe.load(tiny("other"), [*QUICK, "start=small", f"tokenizer={{kind: file, path: {tmp_path}}}"]))
    (tmp_path / "tokenizer.json").write_text(content)  # the same in another file is no offence
    train(Recipe.load(tiny("other"), [*QUICK, "start=small", f"tokenizer={{kind: file, path: {tmp_path}}}"]))
