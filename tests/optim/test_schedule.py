"""Schedules: in range, right at both ends, and without jumps but where one restarts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingot.config.check import validate
from ingot.errors import UserError
from ingot.optim.schedule import Constant, Cosine, Linear, Restarts, Schedule, WarmupStableDecay, share

STEPS = 1_000

shares = st.floats(0, 1)
# A share, or the same in steps; the quotients of a shorter rise would lose their precision.
rises = st.just(0.0) | st.floats(1e-6, 0.5) | st.integers(0, STEPS // 2).map(lambda steps: f"{steps} steps")
falls = st.floats(0.01, 0.5) | st.integers(10, STEPS // 2).map(lambda steps: f"{steps} steps")
falling = st.one_of(
    st.builds(Cosine, rise=rises, floor=shares),
    st.builds(Linear, rise=rises, floor=shares),
    st.builds(WarmupStableDecay, rise=rises, fall=falls, floor=shares),
)
steady = st.one_of(falling, st.builds(Constant, rise=rises))
restarting = st.builds(Restarts, rise=rises, cycles=st.integers(1, 6), lengthen=st.floats(1, 3), floor=shares)
schedules = st.one_of(steady, restarting)


@given(schedules, shares)
def test_a_factor_lies_between_nothing_and_the_peak(schedule: Schedule, done: float):
    assert 0 <= schedule.factor(done, STEPS) <= 1


@given(schedules)
def test_a_rise_goes_from_nothing_to_the_peak(schedule: Schedule):
    schedule.check(STEPS)
    rise = share(schedule.rise, STEPS)
    assert schedule.factor(rise, STEPS) == pytest.approx(1)
    if rise:
        assert schedule.factor(0, STEPS) == 0
        assert schedule.factor(rise / 2, STEPS) == pytest.approx(0.5)


@given(st.one_of(falling, restarting))
def test_a_fall_ends_at_the_floor(schedule: Cosine | Linear | WarmupStableDecay | Restarts):
    assert schedule.factor(1, STEPS) == pytest.approx(schedule.floor)


@given(steady, shares, shares)
def test_after_the_rise_the_rate_never_rises_again(schedule: Schedule, one: float, other: float):
    rise = share(schedule.rise, STEPS)
    early, late = sorted((max(one, rise), max(other, rise)))
    assert schedule.factor(late, STEPS) <= schedule.factor(early, STEPS) + 1e-12


@given(steady, shares)
def test_a_small_advance_makes_a_small_change(schedule: Schedule, done: float):
    advance = 1e-6
    rise, fall = share(schedule.rise, STEPS), share(getattr(schedule, "fall", 1.0), STEPS)
    steepest = math.pi / 2 / min(ramp for ramp in (rise, 1 - rise, fall) if ramp > 0)
    change = schedule.factor(min(1.0, done + advance), STEPS) - schedule.factor(done, STEPS)
    assert abs(change) <= steepest * advance + 1e-9


@given(st.integers(1, 400), shares)
def test_steps_and_the_share_that_they_are_mean_the_same(steps: int, done: float):
    for one, other in [
        (Cosine(rise=f"{steps} steps"), Cosine(rise=steps / STEPS)),
        (WarmupStableDecay(fall=f"{steps} steps"), WarmupStableDecay(fall=steps / STEPS)),
    ]:
        assert one.factor(done, STEPS) == other.factor(done, STEPS)


def test_known_points():
    assert Cosine(rise=0.2, floor=0.1).factor(0.6, STEPS) == pytest.approx(0.55)
    assert Cosine(rise="20 steps", floor=0.1).factor(0.6, 100) == pytest.approx(0.55)
    assert Linear(rise=0.2, floor=0.1).factor(0.6, STEPS) == pytest.approx(0.55)
    assert WarmupStableDecay(rise=0.1, fall=0.4, floor=0.2).factor(0.6, STEPS) == 1
    assert WarmupStableDecay(rise=0.1, fall=0.4, floor=0.2).factor(0.8, STEPS) == pytest.approx(0.6)
    assert WarmupStableDecay(rise=0.1, fall="40 steps", floor=0.2).factor(0.8, 100) == pytest.approx(0.6)
    assert Constant(rise=0.5).factor(0.75, STEPS) == 1


@pytest.mark.parametrize(("cycles", "lengthen"), [(1, 1), (4, 1), (3, 2)])
def test_restarts_are_those_of_pytorch(cycles: int, lengthen: int):
    """PyTorch counts in steps of an optimizer: no rise, and a first cycle of a whole number of steps."""
    first = 12
    steps = first * sum(lengthen**cycle for cycle in range(cycles))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, first, lengthen, eta_min=0.1)
    ours = Restarts(rise=0.0, cycles=cycles, lengthen=lengthen, floor=0.1)
    for step in range(steps):
        assert ours.factor((step + 1e-9) / steps, steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6), step
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("done", [-0.1, 1.1, math.nan])
def test_progress_outside_the_run_is_refused(done: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Constant().factor(done, STEPS)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"kind": "wsd", "rise": 0.5, "fall": 0.6}, "recipe: rise 0.5 and fall 0.6 overlap; their sum is at most 1"),
        (
            {"kind": "cosine", "rise": 200},
            "recipe: rise: a share of the run lies between 0 and 1, unlike 200; write st",
        ),
        ({"kind": "cosine", "rise": "soon"}, "recipe: rise: 'soon' is no part of a run; write a share such as 0.01"),
    ],
)
def test_an_impossible_schedule_is_refused_in_one_line(values: dict, line: str):
    with pytest.raises(UserError) as caught:
        validate(Schedule, values, "recipe")
    assert str(caught.value).startswith(line)


def test_steps_that_a_run_does_not_have_are_refused_once_its_length_is_known():
    with pytest.raises(UserError, match=r"schedule.rise: a rise of 200 steps never reaches the peak in a run of 100"):
        Cosine(rise="200 steps").check(100)
    with pytest.raises(UserError, match=r"rise \(60 steps\) and fall \(0.5\) overlap in a run of 100 steps"):
        WarmupStableDecay(rise="60 steps", fall=0.5).check(100)
    WarmupStableDecay(rise="50 steps", fall=0.5).check(100)
