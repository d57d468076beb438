"""What a run uses of its machine."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch

from ingot.engine.usage import Usage


def test_memory_that_is_taken_shows_and_shares_are_shares():
    usage = Usage(torch.device("cpu"))
    before = usage.read()
    taken = mmap.mmap(-1, 200_000_000)  # not from the heap, which may hold as much that is free
    np.frombuffer(taken, np.uint8)[:] = 1
    after = usage.read()
    assert after["memory_gb"] - before["memory_gb"] == pytest.approx(0.2, abs=0.05)
    assert len(taken) and after["machine_memory_gb"] > after["memory_gb"] / 2
    assert 0 <= after["cpu"] <= 1
    assert before.keys() == after.keys() == {"cpu", "memory_gb", "machine_memory_gb"}


@pytest.mark.gpu
def test_a_gpu_tells_its_memory_and_what_its_driver_lets_be_known():
    device = torch.device("cuda", 0)
    usage = Usage(device)
    before = usage.read()
    taken = torch.ones(50_000_000, device=device)
    after = usage.read()
    assert taken.numel() and after["gpu_memory_gb"] - before["gpu_memory_gb"] <= 0.2 <= after["gpu_memory_gb"]
    assert after["gpu_reserved_gb"] >= 0.2
    assert 0 <= after.get("gpu_utilization", 0.0) <= 1


def test_sensors_that_fail_are_left_out(monkeypatch: pytest.MonkeyPatch):
    def missing(device: torch.device) -> int:
        raise ModuleNotFoundError("pynvml is not there")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    monkeypatch.setattr(torch.cuda, "power_draw", lambda device: 300_000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2_000_000_000)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3_000_000_000)
    found = Usage(torch.device("cuda", 0)).read()
    assert {key: value for key, value in found.items() if key.startswith("gpu")} == {
        "gpu_memory_gb": 2.0,
        "gpu_reserved_gb": 3.0,
        "gpu_power": 300.0,
    }
