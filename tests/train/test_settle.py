"""The speed that a run counts on is the machine's own, not that of a busy moment."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from ingot.distributed import World
from ingot.recipe.recipe import Recipe
from ingot.recipe.sections import Stage
from ingot.train import settle
from ingot.train.settle import (
    ALONE,
    PATIENCE,
    PROBE_ROUNDS,
    Kind,
    measure,
    measured_steps,
    wants_compiled,
)


class Machine:
    """An engine on a clock of its own: each step takes the next of `seconds`, and the last of them ever after."""

    def __init__(self, seconds: Sequence[float]):
        self.now, self.steps, self.renewed, self.others, self.calm = 0.0, 0, 0, 0.0, True
        self.world = World(0, 1, torch.device("cpu"))
        self._seconds = chain(seconds, repeat(seconds[-1]))

    def step(self, batches: object, **_: object) -> SimpleNamespace:
        self.now += next(self._seconds)
        self.steps += 1
        return SimpleNamespace(loss=SimpleNamespace(item=lambda: 0.0))

    def renew_optimizer(self) -> None:
        self.renewed += 1


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Machine, list[Kind]]]:
    """Measures so many kinds of step for 10 seconds on a machine whose steps take these seconds."""

    def run(seconds: Sequence[float], kinds: int = 1, others: float = 0.0) -> tuple[Machine, list[Kind]]:
        machine, measured = Machine(seconds), [Kind(0, 1 / kinds, [], way) for way in range(kinds)]
        monkeypatch.setattr(settle, "time", SimpleNamespace(perf_counter=lambda: machine.now))
        monkeypatch.setattr(settle, "Company", lambda: SimpleNamespace(share=lambda: others))
        machine.others = measure(machine, measured, 10.0)  # type: ignore[arg-type]
        machine.calm = machine.others < ALONE and all(kind.steady for kind in measured)
        return machine, measured

    return run


def test_a_busy_moment_in_the_probe_does_not_count(probe):
    _, (kind,) = probe([2.3] * 4 + [0.8])
    assert kind.pace == pytest.approx(0.8)


def test_a_busy_moment_of_half_the_time_does_not_count(probe):
    machine, (kind,) = probe([2.3] * 7 + [0.8], others=0.4)
    assert kind.pace == pytest.approx(0.8)
    assert max(kind.seconds) == pytest.approx(2.3) and not machine.calm


def test_stalls_that_come_again_and_again_count(probe):
    machine, (kind,) = probe([0.8, 2.0] * 40)
    assert 0.8 <= kind.pace <= 2.0 and not machine.calm


def test_a_calm_machine_is_measured_no_longer_than_needed_and_a_busy_one_longer(probe):
    calm, _ = probe([0.8])
    busy, _ = probe([0.8, 2.0] * 40)
    assert 10 <= calm.now < 11
    assert 10 * PATIENCE <= busy.now < 10 * PATIENCE + 3
    assert calm.renewed == busy.renewed == 1
    assert calm.calm and not busy.calm


def test_a_machine_that_stays_slow_is_taken_as_it_is(probe):
    machine, (kind,) = probe([2.3])
    assert kind.pace == pytest.approx(2.3) and machine.calm


def test_slow_steps_are_made_a_few_times_and_the_first_does_not_count(probe):
    machine, (kind,) = probe([90.0, 30.0])
    assert machine.steps == PROBE_ROUNDS
    assert kind.seconds == [30.0] * (PROBE_ROUNDS - 1)


def test_kinds_take_turns_so_that_all_see_the_same_machine(probe):
    machine, kinds = probe([0.5], kinds=3)
    assert machine.steps == 3 * (len(kinds[0].seconds) + 1)
    assert len({len(kind.seconds) for kind in kinds}) == 1


def test_the_steps_are_those_that_fit_into_the_minutes_by_stage_and_way(monkeypatch):
    stages = [Stage(share=0.5, length=8, batch_tokens=8), Stage(share=0.5, length=8, batch_tokens=16)]
    kinds = [Kind(0, 0.75, [], 0, [1.0, 1.1, 1.0]), Kind(0, 0.25, [], 1, [3.0] * 3), Kind(1, 1.0, [], 1, [2.5] * 3)]
    monkeypatch.setattr(settle, "_kinds", lambda loader, recipe: kinds)
    others = [0.0, 0.0, 0.4]
    monkeypatch.setattr(settle, "measure", lambda engine, kinds, seconds: others.pop(0))
    recipe = SimpleNamespace(stages=stages, train=SimpleNamespace(duration="2 minutes"))
    said: list[str] = []
    meter = SimpleNamespace(console=Console(file=io.StringIO()), say=said.append)
    assert measured_steps(None, None, recipe, meter) == 60  # type: ignore[arg-type]
    assert said == ["2 minutes come to 60 steps of 2 seconds, by a trial"]
    kinds[2].seconds[:] = [2.5, 2.5, 1.0, 2.5]
    assert measured_steps(None, None, recipe, meter) == 60  # type: ignore[arg-type]
    assert said[1].startswith("2 minutes come to 60 steps of 2 seconds, by a trial in which they took 1 to 3:")
    measured_steps(None, None, recipe, meter)  # type: ignore[arg-type]
    assert "by a trial while others had 40% of the processors:" in said[2]  # said of a machine that others use alone


@pytest.mark.parametrize(
    ("duration", "steps", "compiled"),
    [("4 minutes", None, False), ("5 minutes", None, True), ("20 steps", 20, False), ("9000 steps", 9000, True)],
)
def test_a_run_is_compiled_where_that_gains_more_time_than_it_takes(duration, steps, compiled, monkeypatch):
    monkeypatch.setattr(settle, "has_compiler", lambda device: True)
    recipe = Recipe.load("demo", [f"train.duration={duration}"])
    arch, peak = recipe.model.with_vocabulary(8192), lambda: 2e11
    assert wants_compiled(recipe, arch, steps, peak, torch.device("cpu")) == compiled
    assert wants_compiled(recipe.with_training(compile="yes"), arch, steps, peak, torch.device("cpu"))
