"""What the engine learns about the machine, by trying it."""

from __future__ import annotations

import torch

from ingot.engine import device as rooms
from ingot.engine.device import choose_precision, describe, keep_freed_memory, matmul_peak

CPU = torch.device("cpu")


def test_the_precision_is_asked_for_or_the_faster_one(monkeypatch):
    assert choose_precision("bf16", CPU) == "bf16"
    rates = {"fp32": 2.0, "bf16": 1.0}
    monkeypatch.setattr(rooms, "_matmul_rate", lambda device, precision, side, seconds: rates[precision])
    assert choose_precision("auto", CPU) == "fp32"
    rates["bf16"] = 3.0
    assert choose_precision("auto", CPU) == "bf16"


def test_the_peak_is_the_work_of_a_product_over_its_best_time(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 1.5, 1.5, 2.5])
    monkeypatch.setattr(rooms.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(rooms, "PEAK_SIDE", 8)
    monkeypatch.setattr(rooms, "PEAK_SECONDS", 2.0)
    assert matmul_peak(CPU, "fp32") == 2 * 8**3 / 0.5


def test_the_machine_is_described_and_its_memory_kept():
    keep_freed_memory(CPU)
    machine = describe(CPU).to_dict()
    assert machine["device"] and machine["cores"] == torch.get_num_threads() and machine["memory_gb"] > 0
