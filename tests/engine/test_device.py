"""What the engine learns about the machine, by trying it."""

from __future__ import annotations

import logging
import platform
from types import SimpleNamespace

import psutil
import pytest
import torch

from ingot.engine import device as rooms
from ingot.engine.device import describe, give_back_freed_memory, keep_freed_memory, matmul_peak, silence_missing_cuda

CPU = torch.device("cpu")


def test_the_peak_is_the_best_of_the_rates_that_fit_into_the_time(monkeypatch):
    clock, rates = iter([0.0, 0.1, 0.2, 0.3]), iter([5.0, 7.0, 6.0, 99.0])  # the fourth would come too late
    monkeypatch.setattr(rooms, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(rooms, "matmul_rates", lambda device, precision, side: rates)
    assert matmul_peak(CPU, "fp32") == 7.0


def test_a_rate_is_the_work_of_a_product_over_its_time(monkeypatch):
    clock = iter([0.0, 0.5, 2.0, 4.0])
    monkeypatch.setattr(rooms, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    rates = rooms.matmul_rates(CPU, "fp32", 8)
    assert [next(rates), next(rates)] == [2 * 8**3 / 0.5, 2 * 8**3 / 2.0]


def test_the_warning_of_tools_without_a_gpu_is_silenced_and_no_other(caplog):
    torchs = logging.getLogger("torch.utils.cpp_extension")
    silence_missing_cuda()
    silence_missing_cuda()
    torchs.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr/local/cuda")
    torchs.warning("No ROCm runtime is found")
    assert caplog.messages == ["No ROCm runtime is found"]


def test_company_is_what_others_had_of_the_processors(monkeypatch):
    clocks = iter([(0.0, 0.0, 50.0), (10.0, 8.0, 63.0), (20.0, 16.0, 66.0)])
    monkeypatch.setattr(rooms, "_clocks", lambda: next(clocks))
    monkeypatch.setattr("psutil.cpu_count", lambda: 4)
    company = rooms.Company()
    assert company.share() == (13 - 8) / 40
    assert company.share() == 0.0, "clocks of unlike grain may make it negative"


def test_the_clocks_of_this_machine_go_on():
    before = rooms._clocks()
    sum(range(10**6))
    assert all(now >= then for now, then in zip(rooms._clocks(), before, strict=True))


def test_the_machine_is_described_and_its_memory_kept():
    keep_freed_memory(CPU)
    machine = describe(CPU).to_dict()
    assert machine["device"] and machine["cores"] == torch.get_num_threads() and machine["memory_gb"] > 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_stays_until_it_is_given_back():
    def held() -> int:
        return psutil.Process().memory_info().rss

    keep_freed_memory(CPU)
    give_back_freed_memory(CPU)
    before = held()
    block = torch.ones(50_000_000)  # 200 MB
    del block
    assert held() - before > 150_000_000
    give_back_freed_memory(CPU)
    assert held() - before < 50_000_000
