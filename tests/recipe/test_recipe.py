"""Recipes: every built-in one loads, and an impossible combination says what would be possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.config.check import validate
from ingot.config.text import parse_yaml, to_yaml
from ingot.errors import UserError
from ingot.recipe.files import builtin_recipes
from ingot.recipe.recipe import Recipe


@pytest.mark.parametrize("name", builtin_recipes())
def test_builtin_recipes_load_and_survive_a_round_trip(name):
    recipe = Recipe.load(name)
    assert validate(Recipe, parse_yaml(to_yaml(recipe)), "again") == recipe


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "model.hiden_size=8",
            "command line: model.hiden_size=8: there is no key 'hiden_size'; did you mean 'hidden_size'?",
        ),
        ("model.hidden_size=250", "hidden_size=250 does not divide among 4 heads"),
        ("model.layers=many", "command line: model.layers=many: a whole number is needed"),
        ("train.batch_tokens=1000", "batch_tokens=1024 is the nearest that does"),
        ("memory.micro_batch=0", "a number of rows from 1 on, or auto, not 0"),
        ("train.duration=soon", "'soon' is no duration"),
        ("evaluation.every=sometimes", "'sometimes' is no rhythm"),
        ("optimizer=mune", "did you mean 'muon'?"),
        ("train.stages=[{share: 1, length: 100, batch_tokens: 4096}]", "64 is the next shorter length that does"),
        ("train.stages=[{share: 0.5, length: 64, batch_tokens: 4096}]", "add up to 0.5; they must add up to 1"),
        ("name=a/b", "command line: name=a/b: "),
    ],
)
def test_a_mistake_gets_one_line(override, line):
    with pytest.raises(UserError) as caught:
        Recipe.load("demo", ["model.context=256", "model.hidden_size=256", "model.heads=4", override])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("word", "taken"), [("true", "yes"), ("off", "no"), ("False", "no"), ("on", "yes")])
def test_the_words_of_yaml_for_yes_and_no_are_taken(word: str, taken: str):
    assert Recipe.load("demo", [f"train.compile={word}"]).train.compile == taken


def test_deepspeed_refuses_what_it_can_not_share_out_with_the_way_that_can():
    with pytest.raises(UserError, match=r"muon looks at whole rows .*try parallel=zero2 or optimizer=adamw"):
        Recipe.load("gpt-100m-fineweb", ["optimizer=muon"])
    with pytest.raises(UserError, match=r"parallel\.offload=cpu"):
        Recipe.load("gpt-100m-fineweb", ["optimizer.state=bf16"])


@pytest.mark.parametrize(
    ("keys", "native"),
    [
        ("kind: deepspeed", "parallel=zero2"),
        ("kind: deepspeed, stage: 3, offload: cpu", "parallel=zero3 optimizer.offload=true"),
    ],
)
def test_where_deepspeed_is_missing_one_line_says_what_would_do(keys: str, native: str, monkeypatch):
    monkeypatch.setattr("ingot.engine.parallel.find_spec", lambda name: None)
    recipe = Recipe.load("gpt-100m-fineweb", [f"parallel={{{keys}}}"])
    with pytest.raises(UserError, match=rf"DeepSpeed is not installed; .* without it: {native}$"):
        recipe.parallel.check()


def test_unknown_names_get_the_nearest():
    with pytest.raises(UserError, match="did you mean 'demo'"):
        Recipe.load("dmeo")
    with pytest.raises(UserError, match=r"there is no such file"):
        Recipe.load("nowhere/mine.yaml")


def test_a_recipe_with_a_base_holds_only_what_differs(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: demo\nname: mine\nmodel: {layers: 7}\nschedule: cosine\ntrain: {batch_tokens: 8192}\n")
    mine, demo = Recipe.load(path), Recipe.load("demo")
    assert (mine.name, mine.model.layers, mine.train.batch_tokens) == ("mine", 7, 8192)
    assert (mine.model.heads, mine.train.duration) == (demo.model.heads, demo.train.duration)
    assert mine.schedule.kind == "cosine"  # another kind takes over none of the old one's keys


def test_a_recipe_is_not_its_own_base(tmp_path: Path):
    for name, base in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.yaml").write_text(f"base: {tmp_path / base}.yaml\n")
    with pytest.raises(UserError, match="a recipe can't be its own base"):
        Recipe.load(tmp_path / "one.yaml")


def test_a_name_whose_file_lies_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("tales.yaml").write_text("name: tales\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"there is no recipe 'tales'; did you mean the file tales\.yaml\?$"):
        Recipe.load("tales")
