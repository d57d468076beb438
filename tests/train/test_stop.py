"""Signals become wishes while a run makes steps, and take effect when it has saved, whatever it is doing meanwhile."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from courses import records

from ingot.checkpoint.manifest import verify
from ingot.distributed import World
from ingot.errors import Stopped
from ingot.recipe.recipe import Recipe
from ingot.train import run as run_module
from ingot.train import saving, settle
from ingot.train.run import train
from ingot.train.stop import Stop

ALONE = World.alone("cpu")


@contextlib.contextmanager
def caught(number: int) -> Iterator[list[int]]:
    """What a signal that is handed on does to any program, noted instead."""
    got: list[int] = []
    before = signal.signal(number, lambda number, frame: got.append(number))
    try:
        yield got
    finally:
        signal.signal(number, before)


def test_the_first_signal_asks_and_the_second_interrupts():
    said: list[str] = []
    with Stop(said.append) as stop:
        signal.raise_signal(signal.SIGINT)
        assert said == ["stopping after this step, with a save; Ctrl-C again interrupts at once"]
        assert not stop.asked  # until the ranks agree
        stop.agree(ALONE)
        assert stop.asked == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(Stopped):
        stop.hand_on()


def test_a_signal_that_is_no_ctrl_c_does_not_speak_of_one_and_takes_effect_afterwards():
    said: list[str] = []
    with caught(signal.SIGTERM) as got:
        with Stop(said.append) as stop:
            signal.raise_signal(signal.SIGTERM)
        stop.agree(ALONE)
        assert said == ["stopping after this step, with a save"] and not got
        stop.hand_on()
        assert got == [signal.SIGTERM]


def test_a_ctrl_c_goes_to_whoever_else_handles_it():
    with caught(signal.SIGINT) as got:
        with Stop(lambda line: None) as stop:
            signal.raise_signal(signal.SIGINT)
        stop.agree(ALONE)
        stop.hand_on()
        assert got == [signal.SIGINT]


def test_a_save_is_asked_for_without_an_end():
    with Stop(lambda line: None) as stop:
        signal.raise_signal(signal.SIGUSR1)
        stop.agree(ALONE)
        assert stop.save_asked and not stop.asked
        stop.saved()
        stop.agree(ALONE)
        assert not stop.save_asked
    stop.hand_on()  # nothing to hand on


def test_a_signal_in_the_middle_of_a_print_is_not_lost():
    def refuse(line: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    with caught(signal.SIGTERM), Stop(refuse) as stop:
        signal.raise_signal(signal.SIGTERM)
        stop.agree(ALONE)
        assert stop.asked == signal.SIGTERM


def test_where_nothing_could_be_saved_a_signal_takes_effect_at_once_and_a_wish_for_a_save_waits():
    with caught(signal.SIGTERM), Stop(lambda line: None) as stop:
        with pytest.raises(Stopped), stop.at_once():
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGTERM)
        assert stop.asked == signal.SIGTERM
        with pytest.raises(Stopped), stop.at_once():  # one that came just before
            pytest.fail("it went on")
        stop.agree(ALONE)
        assert stop.save_asked


def test_what_goes_on_for_long_breaks_off_after_the_item_at_hand():
    with caught(signal.SIGTERM), Stop(lambda line: None) as stop:
        seen = []
        for item in stop.until_heard(range(5), ALONE):
            seen.append(item)
            if item == 1:
                signal.raise_signal(signal.SIGTERM)
        assert seen == [0, 1]
        assert list(stop.until_heard(range(5), ALONE)) == [0]


def test_the_former_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with Stop(lambda line: None):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


# --- whole runs -------------------------------------------------------------------------------------------------------

QUICK = ["samples.every=never", "evaluation.max_tokens=200"]


def curve(folder: Path) -> list[tuple[Any, ...]]:
    """What a run recorded, but for the time that it took."""
    return [(one["kind"], one["step"], one["loss"]) for one in records(folder, "train", "validation")]


def steps(folder: Path) -> list[int]:
    """The checkpoints that are there, each of them whole."""
    return [verify(path).step for path in sorted((folder / "checkpoints").glob("step-*"))]


def at_the_second(monkeypatch: Any, place: str, number: int) -> None:
    """Have the process get a signal in the middle of the second validation, or of the second save."""
    calls = []
    if place == "evaluating":
        real = run_module.held_out_batches

        def batches(*arguments: Any, **settings: Any) -> Iterator[Any]:
            calls.append(place)
            for count, batch in enumerate(real(*arguments, **settings)):
                if len(calls) == 2 and count == 1:
                    signal.raise_signal(number)
                assert len(calls) != 2 or count < 2, "the validation went on"
                yield batch

        monkeypatch.setattr(run_module, "held_out_batches", batches)
        monkeypatch.setattr(run_module, "HELD_OUT_TOKENS", 32)
    else:
        write = saving.save_state

        def state(*arguments: Any, **settings: Any) -> None:
            calls.append(place)
            if len(calls) == 2:
                signal.raise_signal(number)
            write(*arguments, **settings)

        monkeypatch.setattr(saving, "save_state", state)


def test_a_run_that_is_asked_to_end_while_it_is_busy_ends_saved_and_goes_on(tiny: Callable, monkeypatch):
    settings = {"duration": "6 steps", "save_every": "never"}
    every = [*QUICK, "evaluation.every=2 steps"]
    whole = train(Recipe.load(tiny("whole", **settings), every))
    for place in ("evaluating", "saving"):
        recipe = Recipe.load(tiny(place, **settings), every)
        with monkeypatch.context() as patch, caught(signal.SIGTERM) as got:
            at_the_second(patch, place, signal.SIGTERM)
            train(recipe)
        assert got == [signal.SIGTERM]
        assert steps(recipe.folder)[-1] == 4  # saved before it was looked at, and whole whatever the signal came upon
        assert [one for one in curve(recipe.folder) if one[:2] == ("validation", 4)] == []
        train(recipe)
        assert curve(recipe.folder) == curve(whole)


def test_a_save_asked_for_while_evaluating_is_made_and_the_run_goes_on(tiny: Callable, monkeypatch):
    recipe = Recipe.load(tiny(duration="5 steps", save_every="never", keep=9), [*QUICK, "evaluation.every=2 steps"])
    real = run_module.held_out_loss
    calls = []

    def loss(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGUSR1)
        return real(*arguments)

    monkeypatch.setattr(run_module, "held_out_loss", loss)
    train(recipe)
    assert steps(recipe.folder) == [2, 3, 4, 5]  # 2 before the evaluation; 3 is the wish, as soon as it is heard


def test_signals_while_compiling(tiny: Callable, monkeypatch, capsys):
    recipe = Recipe.load(tiny(compile="yes", duration="3 steps", save_every="never", keep=9), QUICK)
    monkeypatch.setattr(settle, "compile_kept", lambda *_: signal.raise_signal(signal.SIGTERM) or "not reached")
    with caught(signal.SIGTERM) as got:
        train(recipe)
    assert got == [signal.SIGTERM]
    assert "stopped before the first step; the same command begins again" in capsys.readouterr().out
    monkeypatch.setattr(settle, "compile_kept", lambda *_: signal.raise_signal(signal.SIGUSR1) or "no compiler")
    train(recipe)
    assert steps(recipe.folder) == [1, 3]  # 1: the wish, as soon as there is something to save


def test_a_process_that_compiles_ends_when_told_to(tiny: Callable):
    """A real one, by a real signal, in a call that would take a minute; its parent sees why it ended."""
    script = (
        "import sys, time; from ingot.train import settle; from ingot.cli import run\n"
        "settle.compile_kept = lambda *_: print('compiling now', flush=True) or time.sleep(60)\n"
        "sys.exit(run(['train', sys.argv[1], 'train.compile=yes', 'train.duration=4 steps']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tiny())], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout
    for line in process.stdout:
        if "compiling now" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=50) == -signal.SIGTERM, rest
    assert "stopped before the first step" in rest and "Traceback" not in rest
