"""The training benchmark outlives a contender that does not."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable

import pytest
import torch

from ingot.bench import train as bench
from ingot.bench.train import Contender, bench_train
from ingot.engine.native import NativeEngine
from ingot.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the named contenders run, each with a step that is the function of its name, in forked processes."""
    if sys.platform != "linux":
        pytest.skip("needs processes that inherit functions")
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: fork)
    monkeypatch.setattr(bench, "matmul_peak", lambda device, precision: 1e9)
    calls = iter(range(1000))
    steps: dict[str, Callable[[], object]] = {
        "ingot": lambda: None,
        "breaks": lambda: 1 / 0,
        "dies": lambda: os._exit(9),
        "dies later": lambda: os._exit(9) if next(calls) == 3 else None,
    }
    for name in ("_ingot_step", "_plain_step"):
        monkeypatch.setattr(bench, name, lambda contender, device: steps[contender.maker])

    def run(*makers: str) -> None:
        monkeypatch.setattr(bench, "_contenders", lambda device: [Contender(maker, "fp32", False) for maker in makers])

    return run


@pytest.mark.timeout(60)
def test_a_contender_that_ends_is_left_out_and_the_others_measured(contenders, capsys: pytest.CaptureFixture[str]):
    contenders("dies", "breaks", "dies later", "ingot")
    measured = bench_train(0.0)
    assert [(one.maker, len(one.seconds)) for one in measured] == [("ingot", bench.LEAST_ROUNDS)]
    left_out = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert [line.split(",")[0].removeprefix("left out: ") for line in left_out] == ["dies", "breaks", "dies later"]
    assert left_out[1] == "left out: breaks, eager, fp32: division by zero"


@pytest.mark.timeout(60)
def test_without_a_step_of_ingot_there_is_nothing_to_compare(contenders):
    contenders("dies later", "dies")
    with pytest.raises(UserError, match="no step of ingot's own could be measured"):
        bench_train(0.0)


def test_a_step_that_did_not_compile_does_not_pass_for_compiled(monkeypatch: pytest.MonkeyPatch):
    def no_compiler(*args: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(NativeEngine, "compile", no_compiler)
    with pytest.raises(RuntimeError, match="no compiler"):
        bench._ingot_step(Contender("ingot", "fp32", True), CPU)
