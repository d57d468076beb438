"""Mixtures: exact shares at every prefix of a run, also where the weights change."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data.mix import Mixture, whole_numbers

SETS = st.shared(st.integers(1, 6), key="sets")
WEIGHTS = SETS.flatmap(lambda sets: st.lists(st.integers(0, 40), min_size=sets, max_size=sets).filter(any))
STAGES = st.lists(WEIGHTS, min_size=1, max_size=4)


def worst_deviation(mixture: Mixture, weights: list[list[int]], ends: list[int], rows: int) -> Fraction:
    """The largest difference, at any prefix, between the rows that a set was given and its exact share of them."""
    sets, numbers = mixture.places(np.arange(rows))
    due, given_rows, worst = [Fraction(0)] * len(weights[0]), [0] * len(weights[0]), Fraction(0)
    for row, (place, number) in enumerate(zip(sets.tolist(), numbers.tolist(), strict=True)):
        assert number == given_rows[place]  # nothing of a set is skipped, nothing comes twice
        given_rows[place] += 1
        stage = weights[sum(end <= row for end in ends)]
        due = [share + Fraction(weight, sum(stage)) for share, weight in zip(due, stage, strict=True)]
        worst = max(worst, *(abs(share - count) for share, count in zip(due, given_rows, strict=True)))
    assert mixture.taken(rows).tolist() == given_rows
    return worst


@settings(max_examples=60)
@given(weights=STAGES, data=st.data())
def test_shares_are_exact_to_less_than_a_row_at_every_prefix(weights: list[list[int]], data: st.DataObject):
    changes = len(weights) - 1
    ends = sorted(data.draw(st.lists(st.integers(0, 400), min_size=changes, max_size=changes)))
    mixture = Mixture(weights, ends)
    bound = 1 - Fraction(1, max(2, 2 * len(weights[0]) - 2))  # Tijdeman's
    assert worst_deviation(mixture, weights, ends, (ends[-1] if ends else 0) + 150) <= bound


def test_a_mixture_that_would_be_ruined_by_looking_no_further_than_the_stage():
    """Half of eight sets are given more, from the row on at which only half of them all have had their first one."""
    weights = [[1] * 8, [0, 0, 0, 0, 1, 1, 1, 1]]
    assert worst_deviation(Mixture(weights, [4]), weights, [4], 40) < 1


@settings(max_examples=30)
@given(weights=STAGES, rows=st.lists(st.integers(0, 2**50), min_size=1, max_size=20))
def test_a_row_is_found_without_those_before_it(weights: list[list[int]], rows: list[int]):
    ends = [(place + 1) * 10**12 + 7 for place in range(len(weights) - 1)]
    mixture = Mixture(weights, ends)
    sets, numbers = mixture.places(rows)
    assert sum(stretch.table.size for stretch in mixture.stretches) <= 5 * sum(map(sum, weights))  # memory: some turns
    for row, place, number in zip(rows, sets.tolist(), numbers.tolist(), strict=True):
        before, after = mixture.taken(row), mixture.taken(row + 1)
        assert (after - before).tolist() == [int(other == place) for other in range(len(before))]
        assert before[place] == number and before.sum() == row
        for own, count in enumerate(after.tolist()):
            due, begin = Fraction(0), 0
            for stage, end in zip(weights, [*ends, row + 1], strict=True):
                due += Fraction(stage[own], sum(stage)) * max(0, min(end, row + 1) - begin)
                begin = max(begin, min(end, row + 1))
            assert abs(due - count) < 1


def test_places_keep_their_shape():
    sets, numbers = Mixture([[2, 1]]).places(np.arange(12).reshape(3, 4))
    assert sets.shape == numbers.shape == (3, 4)
    assert np.bincount(sets.ravel()).tolist() == [8, 4]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0.1, 0.9], (1, 9)),
        ([3.0, 1.5], (2, 1)),
        ([1 / 3, 1 / 3, 1 / 3], (1, 1, 1)),
        ([0.1811, 0.1440, 0.6749], (1811, 1440, 6749)),
        ([7], (1,)),
        ([0, 5], (0, 1)),
    ],
)
def test_weights_become_the_numbers_that_are_meant(weights: list[float], expected: tuple[int, ...]):
    assert whole_numbers(weights) == expected


@pytest.mark.parametrize("weights", [[0, 0], [-1, 2], [float("nan"), 1], [float("inf"), 1], []])
def test_weights_without_shares_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match="give no shares"):
        whole_numbers(weights)


@pytest.mark.parametrize(
    "weights",
    [[1, 1_000_000], [0.123456789, 0.876543211], [1, 0.87654321], [0.3333333333, 0.6666666667], [1e-9, 1e-300]],
)
def test_weights_without_a_simple_proportion_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match="fewer digits"):
        whole_numbers(weights)
