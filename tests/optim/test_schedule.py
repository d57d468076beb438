"""Schedules: in range, right at both ends, and without jumps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.config import validate
from ingot.errors import UserError
from ingot.optim.schedule import Constant, Cosine, Linear, Schedule, WarmupStableDecay

shares = st.floats(0, 1)
rises = st.just(0.0) | st.floats(1e-6, 0.5)  # the quotients of a shorter rise would lose their precision
falling = st.one_of(
    st.builds(Cosine, rise=rises, floor=shares),
    st.builds(Linear, rise=rises, floor=shares),
    st.builds(WarmupStableDecay, rise=rises, fall=st.floats(0.01, 0.5), floor=shares),
)
schedules = st.one_of(falling, st.builds(Constant, rise=rises))


@given(schedules, shares)
@settings(deadline=None)
def test_a_factor_lies_between_nothing_and_the_peak(schedule: Schedule, done: float):
    assert 0 <= schedule.factor(done) <= 1


@given(schedules)
@settings(deadline=None)
def test_a_rise_goes_from_nothing_to_the_peak(schedule: Schedule):
    assert schedule.factor(schedule.rise) == pytest.approx(1)
    if schedule.rise:
        assert schedule.factor(0) == 0
        assert schedule.factor(schedule.rise / 2) == pytest.approx(0.5)


@given(falling)
@settings(deadline=None)
def test_a_fall_ends_at_the_floor(schedule: Cosine | Linear | WarmupStableDecay):
    assert schedule.factor(1) == pytest.approx(schedule.floor)


@given(schedules, shares, shares)
@settings(deadline=None)
def test_after_the_rise_the_rate_never_rises_again(schedule: Schedule, one: float, other: float):
    early, late = sorted((max(one, schedule.rise), max(other, schedule.rise)))
    assert schedule.factor(late) <= schedule.factor(early) + 1e-12


@given(schedules, shares)
@settings(deadline=None)
def test_a_small_advance_makes_a_small_change(schedule: Schedule, done: float):
    advance = 1e-6
    ramps = [schedule.rise, 1 - schedule.rise, getattr(schedule, "fall", 1.0)]
    steepest = math.pi / 2 / min(ramp for ramp in ramps if ramp > 0)
    change = schedule.factor(min(1.0, done + advance)) - schedule.factor(done)
    assert abs(change) <= steepest * advance + 1e-9


def test_known_points():
    assert Cosine(rise=0.2, floor=0.1).factor(0.6) == pytest.approx(0.55)
    assert Linear(rise=0.2, floor=0.1).factor(0.6) == pytest.approx(0.55)
    assert WarmupStableDecay(rise=0.1, fall=0.4, floor=0.2).factor(0.6) == 1
    assert WarmupStableDecay(rise=0.1, fall=0.4, floor=0.2).factor(0.8) == pytest.approx(0.6)
    assert Constant(rise=0.5).factor(0.75) == 1


@pytest.mark.parametrize("done", [-0.1, 1.1, math.nan])
def test_progress_outside_the_run_is_refused(done: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Constant().factor(done)


def test_overlapping_ramps_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"recipe: rise 0.5 and fall 0.6 overlap; their sum is at most 1"):
        validate(Schedule, {"kind": "wsd", "rise": 0.5, "fall": 0.6}, "recipe")
