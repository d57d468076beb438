"""What this machine is and how fast it multiplies: measured, not looked up."""

from __future__ import annotations

import ctypes
import logging
import math
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

COPIED, COPIES = 2**22, 16  # numbers in each of the blocks by which memory is measured, and how often
PEAK_SIDE, PEAK_SECONDS = 2048, 0.25  # of the square matrices that are multiplied, and spent on the measurement
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
"""by precision, what its speed is measured in; fp8 is held against bf16, in which it does all but some products"""


@dataclass(frozen=True)
class Machine:
    """What a run was measured on, as its report shows it."""

    device: str
    cores: int
    memory_gb: float
    system: str
    python: str
    torch: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def keep_freed_memory(device: torch.device) -> None:
    """Let this process keep the memory that it frees, for its next step, instead of handing it back to the system.

    On a CPU every step needs the same large blocks again, and a block fresh from the system costs a page fault for
    every 4 KiB of it: a tenth of a training step and more. glibc only; elsewhere nothing happens.
    """
    if libc := _glibc(device):
        libc.mallopt(M_MMAP_MAX, 0)  # large blocks come from the heap, too
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # which never shrinks by itself
        libc.mallopt(M_ARENA_MAX, 1)  # and is one for all threads


def give_back_freed_memory(device: torch.device) -> None:
    """Hand all memory that this process kept for its next step back to the system, once.

    For between two kinds of work: blocks of other sizes fit badly into what the first has left, and would come on top.
    """
    if libc := _glibc(device):
        libc.malloc_trim(0)


def _glibc(device: torch.device) -> ctypes.CDLL | None:
    """The library that hands out memory for tensors on `device`, where it is glibc."""
    return ctypes.CDLL(None) if device.type == "cpu" and platform.libc_ver()[0] == "glibc" else None


def describe(device: torch.device) -> Machine:
    """The machine that `device` belongs to; memory in GB (10^9 bytes) of the GPU, or of the host on a CPU."""
    import psutil

    if device.type == "cuda":
        name, memory = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    else:
        name, memory = _processor(), psutil.virtual_memory().total
    return Machine(
        device=name,
        cores=torch.get_num_threads(),
        memory_gb=round(memory / 1e9, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
    )


def _processor() -> str:
    """The processor's own name; Linux keeps it in /proc, other systems answer to `platform`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def matmul_peak(device: torch.device, precision: str) -> float:
    """The best rate at which this device multiplies two square matrices, in FLOP/s: the ceiling of a training step."""
    rates = matmul_rates(device, precision, PEAK_SIDE)
    end, best = time.perf_counter() + PEAK_SECONDS, 0.0
    while not best or time.perf_counter() < end:
        best = max(best, next(rates))
    return best


def matmul_rates(device: torch.device, precision: str, side: int) -> Iterator[float]:
    """FLOP/s of one product after another; the first, which pays for start-up, is left out."""
    left, right = (torch.randn(side, side, dtype=DTYPES[precision], device=device) for _ in range(2))
    rounds = 16 if device.type == "cuda" else 1
    left @ right
    while True:
        began = time.perf_counter()
        for _ in range(rounds):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        yield rounds * 2 * side**3 / (time.perf_counter() - began)


def copy_rate() -> float:
    """Bytes that a CPU reads and writes in a second, when blocks larger than its caches are added up: the best rate."""
    left, right, into = (torch.zeros(COPIED) for _ in range(3))
    best = math.inf
    for _ in range(COPIES):
        began = time.perf_counter()
        torch.add(left, right, out=into)
        best = min(best, time.perf_counter() - began)
    return 3 * left.nbytes / best


def silence_missing_cuda() -> None:
    """Keep torch.compile from warning that CUDA's tools are here and no GPU is: who trains on a CPU has chosen to."""
    logging.getLogger("torch.utils.cpp_extension").addFilter(_is_not_about_missing_cuda)


def _is_not_about_missing_cuda(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("No CUDA runtime is found")


class Company:
    """What else computes on this machine while this process does."""

    def __init__(self) -> None:
        self._began = _clocks()

    def share(self) -> float:
        """Of the time of all processors, the part that other processes had since this was made: 0 to 1."""
        import psutil

        wall, own, all_of_it = (now - then for now, then in zip(_clocks(), self._began, strict=True))
        return max(0.0, all_of_it - own) / max(wall * (psutil.cpu_count() or 1), 1e-9)


def _clocks() -> tuple[float, float, float]:
    """Seconds: of the wall, of this process on processors, and of all processes."""
    import psutil

    times = psutil.cpu_times()
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    return time.perf_counter(), time.process_time(), busy


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile can work here: a C++ compiler for a CPU, Triton for a GPU."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return bool(has_triton())
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
