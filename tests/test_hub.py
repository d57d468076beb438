"""Patience with the hub: what is waited out, for how long, and what is told."""

from __future__ import annotations

import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from ingot import hub
from ingot.errors import UserError
from ingot.hub import Outage, Patience, Unreachable, asked_wait, of_hub, passing, patiently, status, told


class Answer(Exception):
    """What a client raises for an answer of the server's."""

    def __init__(self, code: int, **headers: str):
        super().__init__(code)
        self.response = SimpleNamespace(
            status_code=code, headers={key.replace("_", "-"): headers[key] for key in headers}
        )


def wrapped(cause: Exception, *, hide: bool = False) -> Exception:
    """An error of a client's own, raised from or in place of `cause`."""
    try:
        try:
            raise cause
        except Exception as error:
            raise FileNotFoundError("not in the cache") from (None if hide else error)
    except FileNotFoundError as error:
        return error


@pytest.fixture
def clock(monkeypatch):
    """Waits, which pass at once on a clock that only they move."""
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, monotonic=lambda: sum(waits), time=time.time)
    monkeypatch.setattr(hub, "time", clock)  # not the module itself: servers of other tests run by it
    return waits


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_faults_are_tried_again(code, clock):
    errors: list[Exception] = [wrapped(Answer(code)), Answer(code), ConnectionError()]
    said: list[str] = []

    def action() -> str:
        if errors:
            raise errors.pop()
        return "there"

    assert patiently(action, "someone/data", say=said.append) == "there"
    assert len(said) == len(clock) == 3
    assert 0.75 <= clock[0] <= 1.25 and 1.5 <= clock[1] <= 2.5 and 3 <= clock[2] <= 5


@pytest.mark.parametrize("code", [400, 401, 403, 404, 416])
def test_what_does_not_pass_is_told_at_once(code, clock):
    with pytest.raises(Unreachable) as caught:
        patiently(lambda: (_ for _ in ()).throw(wrapped(Answer(code), hide=True)), "someone/data")
    assert not clock
    assert caught.value.where == "someone/data"
    assert "HTTP 400" in str(caught.value) or code != 400


def test_an_error_that_is_not_the_hubs_is_left_alone(clock):
    for error in (ValueError("a fault of ours"), UserError("a mistake")):
        assert not of_hub(error)
        with pytest.raises(type(error)):
            patiently(lambda error=error: (_ for _ in ()).throw(error), "someone/data")


def test_a_hub_that_never_answers_is_given_up_sooner_than_one_that_did(clock):
    silent = Outage("someone/data", Patience(total=600, silent=30))
    with pytest.raises(Unreachable, match="someone/data: the hub can't be reached; run the same command again later"):
        for _ in range(100):
            silent.wait(ConnectionError())
    assert 10 < sum(clock) <= 30
    clock.clear()
    known = Outage("someone/data", Patience(total=600, silent=30))
    known.over()
    with pytest.raises(Unreachable):
        for _ in range(100):
            known.wait(ConnectionError())
    assert 500 < sum(clock) <= 600
    assert max(clock) <= 60 * 1.25


def test_getting_on_restores_patience(clock):
    outage = Outage("someone/data", Patience(total=100))
    for _ in range(50):
        for _ in range(4):
            outage.wait(Answer(503))
        outage.over()
    assert sum(clock) > 500


def test_the_wait_is_what_the_server_asks_for(clock):
    assert asked_wait(Answer(429, retry_after="17")) == 17
    assert 50 < asked_wait(Answer(503, retry_after=formatdate(time.time() + 60, usegmt=True))) <= 60
    assert asked_wait(Answer(429, ratelimit='"api";r=0;t=55')) == 55
    assert asked_wait(Answer(429)) == asked_wait(ConnectionError()) == asked_wait(Answer(503, retry_after="soon")) == 0
    Outage("someone/data", Patience()).wait(wrapped(Answer(429, retry_after="17")))
    assert clock == [17]
    with pytest.raises(Unreachable):
        Outage("someone/data", Patience(total=10)).wait(Answer(429, retry_after="17"))


def test_a_stale_answer_behind_a_broken_connection_does_not_decide():
    """The client asks for a file that is optional, is told 404, asks for the next, and loses the connection."""
    try:
        try:
            raise Answer(404)
        except Answer:
            raise TimeoutError("read timed out")  # noqa: B904
    except TimeoutError as error:
        lost = error
    assert passing(lost) and status(lost) is None
    assert told(lost)[0] == "the hub can't be reached"


def test_a_hub_that_is_switched_off_is_not_waited_for(clock):
    switched_off = type("OfflineModeIsEnabled", (ConnectionError,), {})("HF_HUB_OFFLINE")
    with pytest.raises(Unreachable, match="switched off by HF_HUB_OFFLINE; unset it"):
        Outage("someone/data", Patience()).wait(wrapped(switched_off))
    assert not clock
