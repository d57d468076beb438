"""Recipes: every built-in one loads, and an impossible combination says what would be possible."""

from __future__ import annotations

import pytest

from ingot.config import parse_yaml, to_yaml, validate
from ingot.errors import UserError
from ingot.recipe import Every, Recipe, builtin_recipes


@pytest.mark.parametrize("name", builtin_recipes())
def test_builtin_recipes_load_and_survive_a_round_trip(name):
    recipe = Recipe.load(name)
    assert validate(Recipe, parse_yaml(to_yaml(recipe)), "again") == recipe


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model.hiden_size=8", "model.hiden_size: there is no key 'hiden_size'; did you mean 'hidden_size'?"),
        ("model.hidden_size=250", "hidden_size=250 does not divide among 4 heads"),
        ("model.layers=many", "model.layers: input should be a valid integer"),
        ("train.batch_tokens=1000", "batch_tokens=1024 is the nearest that does"),
        ("train.micro_tokens=300", "does not split into micro-batches of 300"),
        ("train.duration=soon", "'soon' is no duration"),
        ("evaluation.every=sometimes", "'sometimes' is no rhythm"),
        ("optimizer=mune", "did you mean 'muon'?"),
        ("train.stages=[{share: 1, length: 100, batch_tokens: 4096}]", "64 is the next shorter length that does"),
        ("train.stages=[{share: 0.5, length: 64, batch_tokens: 4096}]", "add up to 0.5; they must add up to 1"),
        ("name=a/b", "name: "),
    ],
)
def test_a_mistake_gets_one_line(override, line):
    with pytest.raises(UserError) as caught:
        Recipe.load("demo", ["model.context=256", "model.hidden_size=256", "model.heads=4", override])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_get_the_nearest():
    with pytest.raises(UserError, match="did you mean 'demo'"):
        Recipe.load("dmeo")
    with pytest.raises(UserError, match=r"there is no such file"):
        Recipe.load("nowhere/mine.yaml")


def test_a_rhythm_falls_due_as_often_as_it_says():
    assert [step for step in range(1, 21) if Every.parse("7 steps").due(step, 20)] == [7, 14]
    assert [step for step in range(1, 21) if Every.parse("25%").due(step, 20)] == [5, 10, 15, 20]
    assert sum(Every.parse("10%").due(step, 1_234) for step in range(1, 1_235)) == 10
    assert not any(Every.parse("never").due(step, 20) for step in range(1, 21))
