"""Durations and rhythms in words: read as they are meant, due as often as they say."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.rhythm import Duration, Every, in_words

NO_EPOCHS = (0, 0)


def due(text: str, steps: int) -> list[int]:
    return [step for step in range(1, steps + 1) if Every.parse(text).due(step, steps, NO_EPOCHS)]


@pytest.mark.parametrize("text", ["", "5", "5 parsecs", "minutes", "0 steps", "-3 steps"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is no duration"):
        Duration.parse(text)


@given(st.integers(1, 10**12) | st.floats(0.01, 1000), st.sampled_from(get_args(get_type_hints(Duration)["unit"])))
def test_a_duration_is_written_as_it_is_read(amount, unit):
    duration = Duration(amount, unit)
    read = Duration.parse(str(duration.longer(0)))
    assert read.unit == unit and read.amount == pytest.approx(4 * amount, rel=1e-14)


@pytest.mark.parametrize("text", ["", "5", "0 steps", "0 epochs", "epoch 2", "sometimes", "-1 %"])
def test_what_is_no_rhythm_is_refused(text):
    with pytest.raises(ValueError, match="is no rhythm"):
        Every.parse(text)


def test_a_rhythm_falls_due_as_often_as_it_says():
    assert due("7 steps", 20) == [7, 14]
    assert due("25%", 20) == [5, 10, 15, 20]
    assert len(due("10%", 1_234)) == 10
    assert not due("never", 20)
    assert not due("epoch", 20)


@given(st.integers(1, 50), st.lists(st.integers(1, 20), min_size=1, max_size=100), st.integers(1, 3))
def test_an_epoch_is_noticed_once_at_the_step_that_completes_it(epoch, batches, every):
    """Whatever the batches, of blocks each: also where a step goes through several epochs."""
    rhythm, used, noticed = Every.parse("epoch" if every == 1 else f"{every} epochs"), 0, 0
    for step, batch in enumerate(batches, 1):
        before, used = used // epoch, used + batch
        falls_due = rhythm.due(step, len(batches), (before, used // epoch))
        assert falls_due == any(blocks % (every * epoch) == 0 for blocks in range(used - batch + 1, used + 1))
        noticed += falls_due
    assert noticed <= used // (every * epoch)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.634, "0.634 seconds"),
        (119.4, "119 seconds"),
        (120, "2.0 minutes"),
        (7_199, "120.0 minutes"),
        (7_200, "2.0 hours"),
        (40e6, "463.0 days"),
    ],
)
def test_a_time_is_said_in_the_largest_unit_of_which_there_are_two(seconds: float, said: str):
    assert in_words(seconds) == said
