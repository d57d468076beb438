from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.errors import UserError
from ingot.sweep.grid import MOST, Grid, alternatives


def test_every_combination_is_a_run_and_what_has_one_value_is_fixed() -> None:
    grid = Grid.of(["model.layers=2,4", "optimizer.lr=1e-3,0.02", "seed=3"])
    assert [point.name for point in grid.points] == [
        "layers-2_lr-1e-3",
        "layers-2_lr-0.02",
        "layers-4_lr-1e-3",
        "layers-4_lr-0.02",
    ]
    assert grid.points[2].assignments == ("model.layers=4", "optimizer.lr=1e-3")
    assert grid.points[2].values == {"model.layers": 4, "optimizer.lr": 0.001}
    assert grid.fixed == ("seed=3",)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a", ["a"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{kind: adamw, lr: 1},muon", ["{kind: adamw, lr: 1}", "muon"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("[a, b]", ["[a, b]"]),
        ("", [""]),
    ],
)
def test_commas_within_brackets_and_quotes_part_nothing(text: str, values: list[str]) -> None:
    assert alternatives(text) == values


@given(st.lists(st.integers(), min_size=2, max_size=9, unique=True))
def test_numbers_come_back(numbers: list[int]) -> None:
    grid = Grid.of([f"seed={','.join(map(str, numbers))}"])
    assert [point.values["seed"] for point in grid.points] == numbers
    assert len({point.name for point in grid.points}) == len(numbers)


def test_names_are_folders_names_and_differ() -> None:
    grid = Grid.of(["data.sources.0.path=a/b,a-b", "train.duration=5 minutes,10 minutes"])
    names = [point.name for point in grid.points]
    assert len(set(names)) == 4 and all(name[0].isalnum() and "/" not in name and " " not in name for name in names)
    long = Grid.of([f"samples.prompts=[{'x' * 200}],[{'x' * 201}]"])
    assert [point.name[:4] for point in long.points] == ["001-", "002-"]


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["seed=1"], "nothing to sweep"),
        ([], "nothing to sweep"),
        (["seed"], "not of the form"),
        (["seed=1,2", "seed=3,4"], "given twice"),
        (["seed=1,,2"], "empty"),
        (["seed=1,1"], "twice"),
        (["name=a,b"], "chooses name itself"),
        (["seed=1,2", "runs=x"], "chooses runs itself"),
        ([f"seed={','.join(map(str, range(MOST + 1)))}"], "more than"),
    ],
)
def test_mistakes_are_told(assignments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Grid.of(assignments)
