"""Something long says that it goes on, wherever its output goes."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from ingot.train import waiting as room
from ingot.train.waiting import waiting


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def wait_for(text: str, console: Console) -> None:
    end = time.monotonic() + 60
    while text not in shown(console):
        assert time.monotonic() < end, shown(console)
        time.sleep(0.005)


def test_where_no_terminal_is_a_line_comes_now_and_then(monkeypatch):
    monkeypatch.setattr(room, "QUIET_SECONDS", 0.01)
    console = Console(file=io.StringIO(), force_terminal=False)
    with waiting(console, "compiling the model", "shapes", 4) as done:
        wait_for("compiling the model: 0 of 4 shapes, 0 seconds\n", console)
        done(3)
        wait_for("compiling the model: 3 of 4 shapes, ", console)
    before = shown(console)
    time.sleep(0.05)
    assert shown(console) == before, "it is silent afterwards"


def test_what_is_over_soon_says_nothing_where_no_terminal_is():
    console = Console(file=io.StringIO(), force_terminal=False)
    with waiting(console, "compiling the model", "shapes", 4) as done:
        done(4)
    assert shown(console) == ""


def test_a_terminal_shows_what_is_done_and_for_how_long():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with waiting(console, "compiling the model", "shapes", 4) as done:
        done(3)
        wait_for("3 of 4 shapes", console)
    assert "compiling the model" in shown(console) and "0:00:0" in shown(console)


@pytest.mark.parametrize("terminal", [False, True])
def test_an_error_passes_and_ends_it(terminal, monkeypatch):
    monkeypatch.setattr(room, "QUIET_SECONDS", 0.01)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with pytest.raises(KeyboardInterrupt), waiting(console, "measuring the speed"):
        wait_for("measuring the speed", console)
        raise KeyboardInterrupt
    assert " of " not in shown(console), "without a total there is nothing to count"
