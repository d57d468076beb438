"""Memory: what is computed again instead of kept, how much there is, and how many rows fit into it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ingot.data.loader import TokenBatch
from ingot.distributed import neighbours
from ingot.engine.engine import Engine
from ingot.model.decoder import Decoder

SPARE = 0.08  # share of a device's memory left for what no arithmetic sees: fragments, libraries, evaluation
CONTROL = Path("/sys/fs/cgroup")
GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""of the control group that a container runs in (Linux, versions 2 and 1): limit, use, and what of it can be dropped"""


def recompute(model: Decoder, every: int) -> None:
    """Have every `every`-th block of `model`, from the first on, computed again in the backward pass; 0: none.

    Such a block keeps its input alone. Gradients stay the same to the last bit: dropout is drawn again from the same
    random state (Chen et al., 2016, arXiv:1604.06174).
    """
    for number, block in enumerate(model.blocks):
        block.recompute = bool(every) and number % every == 0  # type: ignore[assignment]


def available(device: torch.device) -> int:
    """Bytes that this process may still take on `device`, those that PyTorch holds in reserve included.

    On a CPU its share of what is free on the machine, or within the limit of its container.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil

    free = psutil.virtual_memory().available
    for limit, used, details, droppable in GROUPS:
        with contextlib.suppress(OSError, ValueError, KeyError):  # no such file, or "max": no such limit
            most = int(_said(limit))
            dropped = dict(line.split() for line in _said(details).splitlines())[droppable]
            free = min(free, most - int(_said(used)) + int(dropped))
    return max(0, free) // neighbours()


def _said(name: str) -> str:
    return (CONTROL / name).read_text(encoding="ascii")


def fitting_rows(most: int, fits: Callable[[int], bool]) -> int:
    """The first of `most`, its half, its quarter … (rounded up, so that the parts stay even) that `fits`; 0: none."""
    rows = most
    while not fits(rows):
        if rows == 1:
            return 0
        rows = -(-rows // 2)
    return rows


def survives(engine: Engine, batches: Sequence[TokenBatch], candidates: int = 0) -> bool:
    """Whether a whole step over `batches` fits into memory on every rank: made, at a rate of 0, and forgotten.

    For a run that has no past: the optimizer is new afterwards, and the weights are as before. On a GPU it must leave
    some memory to spare.
    """
    device, enough = engine.world.device, True
    try:
        engine.step(batches, factor=0.0, step=0, seed=0, candidates=candidates)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        enough = False
    if enough and device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        enough = free >= SPARE * total
    _tidy(engine, device)
    return not engine.world.any(not enough)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that an allocation failed; a CPU's allocator and cuBLAS have no class of their own."""
    said = str(error)
    named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return named or "DefaultCPUAllocator: can't allocate" in said or "CUBLAS_STATUS_ALLOC_FAILED" in said


def _tidy(engine: Engine, device: torch.device) -> None:
    """Give back what a step that may have been cut short has left behind."""
    engine.model.zero_grad(set_to_none=True)
    engine.renew_optimizer()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
