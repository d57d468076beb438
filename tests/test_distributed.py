"""A process's place among its peers; what several of them do together is shown in tests/engine/test_parallel.py."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from ingot.distributed import World, cores, fails_first, most_held
from ingot.errors import UserError


def world(size: int) -> World:
    return World(0, size, torch.device("cpu"))


@given(count=some.integers(0, 200), size=some.integers(1, 17))
def test_rows_are_shared_out_as_fsdp_shares_them(count, size):
    chunks = torch.arange(count).chunk(size) if count else ()
    lengths = [len(chunk) for chunk in chunks]
    assert world(size).rows(count) == lengths + [0] * (size - len(lengths))


def test_one_process_agrees_with_itself_without_a_group():
    alone = World.alone("cpu")
    value, tensor = {"any": object()}, torch.ones(3)
    assert alone.agreed(value) is value and alone.sum(tensor) is tensor
    assert alone.most(3, 1) == [3, 1] and alone.any(True) and not alone.any(False)
    with alone.together():
        assert not torch.distributed.is_initialized()
    with pytest.raises(RuntimeError, match="Connection closed by peer"), alone.together():
        raise RuntimeError("Connection closed by peer")


def test_before_the_processes_have_met_the_first_one_speaks(monkeypatch):
    assert fails_first()
    monkeypatch.setenv("RANK", "1")
    assert not fails_first()


def test_what_a_process_has_held_is_its_own():
    ballast = bytearray(b"x" * 300_000_000)
    ours = most_held()
    assert ours and ours >= max(psutil.Process().memory_info().rss * 0.9, len(ballast))
    code = "from ingot.distributed import most_held; print(most_held())"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0 < int(theirs) < 200_000_000


def test_cores_are_shared_with_those_beside(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cores() == 4


def test_more_processes_than_gpus_are_refused_in_one_line(monkeypatch):
    from ingot import distributed

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"4 processes on this machine, and 1 GPU; start it with .*--nproc-per-node 1"):
        distributed._own_gpu(3)
