"""Signals become wishes while a run makes steps, and take effect when it has saved."""

from __future__ import annotations

import signal

import pytest

from ingot.train.stop import Stop


def test_the_first_signal_asks_and_the_second_interrupts():
    said: list[str] = []
    with Stop(said.append) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked == signal.SIGINT and len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        stop.hand_on()


def test_a_save_is_asked_for_without_an_end():
    with Stop(lambda line: None) as stop:
        signal.raise_signal(signal.SIGUSR1)
        assert stop.save_asked and not stop.asked
    stop.hand_on()  # nothing to hand on


def test_the_former_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with Stop(lambda line: None):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
