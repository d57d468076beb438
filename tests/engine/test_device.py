"""What the engine learns about the machine, by trying it."""

from __future__ import annotations

from itertools import cycle

import torch

from ingot.engine import device as rooms
from ingot.engine.device import choose_precision, describe, keep_freed_memory, matmul_peak

CPU = torch.device("cpu")


def test_the_precision_is_asked_for_or_the_faster_one_at_its_best(monkeypatch):
    assert choose_precision("bf16", CPU) == "bf16"
    rates = {"fp32": [1.0, 9.0], "bf16": [5.0, 5.0]}
    monkeypatch.setattr(rooms, "_matmul_rates", lambda device, precision, side: cycle(rates[precision]))
    assert choose_precision("auto", CPU) == "fp32", "one stall does not decide"
    rates["bf16"] = [1.0, 10.0]
    assert choose_precision("auto", CPU) == "bf16"


def test_the_peak_is_the_best_of_the_rates_that_fit_into_the_time(monkeypatch):
    clock, rates = iter([0.0, 0.1, 0.2, 0.3]), iter([5.0, 7.0, 6.0, 99.0])  # the fourth would come too late
    monkeypatch.setattr(rooms.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(rooms, "_matmul_rates", lambda device, precision, side: rates)
    assert matmul_peak(CPU, "fp32") == 7.0


def test_a_rate_is_the_work_of_a_product_over_its_time(monkeypatch):
    clock = iter([0.0, 0.5, 2.0, 4.0])
    monkeypatch.setattr(rooms.time, "perf_counter", lambda: next(clock))
    rates = rooms._matmul_rates(CPU, "fp32", 8)
    assert [next(rates), next(rates)] == [2 * 8**3 / 0.5, 2 * 8**3 / 2.0]


def test_the_machine_is_described_and_its_memory_kept():
    keep_freed_memory(CPU)
    machine = describe(CPU).to_dict()
    assert machine["device"] and machine["cores"] == torch.get_num_threads() and machine["memory_gb"] > 0
