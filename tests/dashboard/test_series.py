from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.dashboard.series import columns, smooth, spread, thin

values = st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=1, max_size=400)


@given(values, st.integers(5, 60))
def test_thinning_keeps_extremes_and_ends_and_never_exceeds_its_number(numbers: list[float], points: int) -> None:
    series = np.array(numbers)
    places = thin(series, points)
    assert len(places) <= points
    assert (np.diff(places) > 0).all()
    assert places[0] == 0 and places[-1] == len(series) - 1
    if np.isfinite(series).any():
        assert np.nanmin(series[places]) == np.nanmin(series)
        assert np.nanmax(series[places]) == np.nanmax(series)
    assert np.isnan(series[places]).any() == np.isnan(series).any()


def test_a_spike_of_one_step_in_a_hundred_thousand_is_still_there() -> None:
    series = np.full(100_000, 3.0)
    series[31_415] = 11.0
    assert 31_415 in thin(series, 1_500)


def test_smoothing_leaves_a_straight_line_straight_at_its_beginning() -> None:
    line = np.linspace(9, 3, 200)
    np.testing.assert_allclose(smooth(line, 20)[:180], line[:180])


def test_smoothing_is_the_mean_of_the_finite_neighbours() -> None:
    series = np.array([1.0, 2.0, np.nan, 6.0, 9.0])
    np.testing.assert_allclose(smooth(series, 1), [1.0, 1.5, 4.0, 7.5, 7.5])
    assert np.isnan(smooth(np.array([np.nan, np.nan]), 3)).all()


def test_columns_are_ascending_and_the_later_of_two_records_counts() -> None:
    records = [
        {"step": 2, "loss": 5.0},
        {"step": 1, "loss": 6.0},
        {"step": 2, "loss": 4.0},
        {"step": None, "loss": 1.0},
        {"step": 3, "loss": "high"},
        {"step": 4, "loss": 10**400},
    ]
    table = columns(records, ["step", "loss"])
    np.testing.assert_array_equal(table["step"], [1, 2, 3, 4])
    np.testing.assert_array_equal(table["loss"], [6, 4, np.nan, np.nan])


@pytest.mark.parametrize(("count", "most"), [(0, 5), (3, 5), (100, 7), (61, 60)])
def test_a_spread_has_the_first_and_the_last(count: int, most: int) -> None:
    places = spread(count, most)
    assert len(places) == min(count, most)
    assert not count or (places[0], places[-1]) == (0, count - 1)
