"""Fits on synthetic losses whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.errors import UserError
from ingot.sweep.law import FLOORED, LINE, fit

SIZES = np.array([1e6, 3e6, 1e7, 3e7, 1e8, 3e8])


@settings(max_examples=20)
@given(st.floats(0.0, 3.0), st.floats(0.1, 0.6), st.floats(0.5, 6.0))
def test_a_law_without_noise_is_found_again(floor: float, exponent: float, rise: float) -> None:
    losses = floor + rise * (SIZES / SIZES[0]) ** -exponent
    law = fit(SIZES, losses)
    assert law.source == FLOORED
    assert (law.floor, law.exponent) == (pytest.approx(floor, abs=0.02), pytest.approx(exponent, abs=0.01))
    assert law.at(3e9)[0] == pytest.approx(floor + rise * 3000**-exponent, rel=5e-3)


def test_three_sizes_give_the_line_on_log_log_paper() -> None:
    law = fit(SIZES[:3], 20 * SIZES[:3] ** -0.08)
    assert (law.source, law.floor) == (LINE, 0)
    assert (law.exponent, law.scale) == (pytest.approx(0.08), pytest.approx(20))
    assert law.at(1e9) == pytest.approx((20 * 1e9**-0.08,) * 3)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    draw, held = np.random.default_rng(0), 0
    for seed in range(40):
        losses = (1.8 + 3 * (SIZES / SIZES[0]) ** -0.35) * (1 + 0.004 * draw.standard_normal(len(SIZES)))
        low, high = fit(SIZES, losses, seed=seed).between(2)
        held += low <= 0.35 <= high
    assert held >= 33  # of 36 expected


def test_repeated_sizes_count_once_as_sizes_and_each_as_a_loss() -> None:
    with pytest.raises(UserError, match="2 sizes say nothing"):
        fit([1e6, 1e6, 1e7, 1e7], [4, 4.1, 3, 3.1])
    law = fit([1e6, 1e6, 1e7, 1e7, 1e8, 1e8], [4, 4.2, 3, 3.2, 2.25, 2.4])
    assert law.source == LINE and law.between(2)[0] < law.exponent < law.between(2)[1]


@pytest.mark.parametrize("losses", [[3, 2, -1], [3, 2, np.nan], [3, 2, 0]])
def test_what_is_no_loss_is_refused(losses: list[float]) -> None:
    with pytest.raises(UserError, match="positive"):
        fit([1e6, 1e7, 1e8], losses)


def test_losses_that_do_not_fall_give_a_flat_law() -> None:
    law = fit(SIZES, np.full(6, 3.0))
    assert law.at(1e10)[0] == pytest.approx(3.0, rel=1e-3)
