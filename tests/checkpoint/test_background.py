"""One piece of work beside the loop: what came of it is told once, to whoever waits."""

from __future__ import annotations

import threading

import pytest

from ingot.checkpoint.background import Background


def test_what_is_begun_goes_on_beside_and_is_told_once():
    gate, work = threading.Event(), Background[int]()
    assert work.wait() is None and not work.under_way
    work.start(lambda: gate.wait(60) and 7)
    assert work.under_way
    gate.set()
    work.finish()
    assert not work.under_way
    assert work.wait() == 7 and work.wait() is None


def test_what_goes_wrong_beside_is_raised_where_it_is_waited_for():
    def fail() -> int:
        raise ValueError("no room")

    work = Background[int]()
    work.start(fail)
    work.finish()
    with pytest.raises(ValueError, match="no room"):
        work.wait()
    assert work.wait() is None
    work.start(lambda: 3)
    assert work.wait() == 3
