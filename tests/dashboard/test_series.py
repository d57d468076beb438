from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.dashboard.series import BUCKETS, Course, columns, spread

values = st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=1, max_size=300)


def course(*batches: list[float], key: str = "loss") -> Course:
    """The values as the records of steps 1, 2, 3 …, heard batch by batch."""
    made, step = Course(["step"], [key]), 0
    for batch in batches:
        made.add(np.arange(step + 1, step + len(batch) + 1, dtype=float)[None], np.array(batch)[None])
        step += len(batch)
    return made


@given(st.lists(values, min_size=1, max_size=8), st.integers(2, 40))
def test_buckets_keep_extremes_means_and_ends_however_the_records_came(batches: list[list[float]], limit: int) -> None:
    numbers = np.array([value for batch in batches for value in batch])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ingot.dashboard.series.BUCKETS", limit)
        made, at_once = course(*batches), course(list(numbers))
    buckets = made.buckets
    assert len(buckets) <= limit and buckets.counts.sum() == len(numbers)
    assert (buckets.counts == at_once.buckets.counts).all() and len(set(buckets.counts[:-1])) <= 1
    assert (np.diff(buckets.axes[0]) > 0).all() and buckets.axes[0, -1] == len(numbers)
    finite = numbers[np.isfinite(numbers)]
    mean, low, high = made.of(buckets, "loss")
    assert buckets.finite.sum() == len(finite)
    if len(finite):
        assert (np.nanmin(low), np.nanmax(high)) == (finite.min(), finite.max())
        np.testing.assert_allclose(buckets.sums.sum(), finite.sum(), rtol=1e-9, atol=1e-9 * np.abs(finite).max())
        np.testing.assert_array_equal(np.isnan(mean), buckets.finite[0] == 0)
    for points in (1, 3, limit):
        thinned = buckets.thinned(points)
        assert len(thinned) <= points and thinned.counts.sum() == len(numbers)


def test_a_spike_of_one_step_in_a_hundred_thousand_is_still_there() -> None:
    series = np.full(100_000, 3.0)
    series[31_415] = 11.0
    made = course(list(series))
    assert made.of(made.buckets, "loss")[2].max() == 11 and len(made.buckets) > BUCKETS / 2


def test_records_that_do_not_get_on_are_left_out() -> None:
    made = course([1.0, 2.0])
    made.add(np.array([[2.0, 1.0, 3.0, 3.0, 4.0]]), np.array([[9.0, 9.0, 3.0, 9.0, 4.0]]))
    np.testing.assert_array_equal(made.of(made.buckets, "loss")[0], [1, 2, 3, 4])


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
