"""How many rows a forward pass takes: as many as arithmetic says that memory holds, and on a GPU as a trial shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch

from ingot.data.loader import TokenBatch
from ingot.engine.engine import Engine
from ingot.engine.memory import SPARE, available, fitting_rows, survives
from ingot.errors import UserError
from ingot.estimate.devices import Device, kind_of
from ingot.estimate.memory import fitting, works
from ingot.model.architecture import Architecture
from ingot.model.memory import Precision, Work
from ingot.optim.muon import local
from ingot.recipe.recipe import Recipe

ACCUMULATED = 2  # micro-batches of a trial step: the second one finds the gradients of the first


def fitted(
    engine: Engine, recipe: Recipe, arch: Architecture, precision: str, say: Callable[[str], None], *, past: bool
) -> Recipe:
    """The recipe with `memory.micro_batch` settled, where it is left open; the same on every rank.

    A run with a `past` makes no trial, which would cost it its optimizer's state. Raises UserError where not even one
    row fits.
    """
    if recipe.memory.micro_batch != "auto":
        return recipe
    device, ranks = engine.world.device, engine.world.size
    kind = kind_of(device)
    here = Device(device.type, kind, memory=0.0, peaks={})

    def plan(blocks: int | None) -> list[Work]:
        return works(recipe, here, precision=cast(Precision, precision), compiled=False, ranks=ranks, blocks=blocks)

    weights = sum(part.numel() * part.element_size() for part in local(engine.model.parameters()))
    room = (available(device) + weights) * (1 - SPARE)
    rows = -engine.world.most(-fitting(recipe, arch, plan, room, ranks))[0]
    if kind == "cuda" and not past:  # the system of a CPU ends a process that takes too much, and does not tell it
        rows = fitting_rows(max(1, rows), lambda rows: survives(engine, trial(arch, plan(rows)), candidates(recipe)))
    if not rows:
        raise UserError(
            f"not even one row of {arch.context:,} tokens fits into the {room / 1e9:.1f} GB of memory that are left",
            where="memory",
            mend="try memory.checkpoint_every=1, optimizer=adamw8bit or a shorter model.context",
        )
    share = max(work.tokens for work in plan(None)) // arch.context
    if share > rows:
        say(f"memory: {rows} rows of {arch.context:,} tokens fit into a forward pass; a step takes {-(-share // rows)}")
    return recipe.with_memory(micro_batch=rows)


def trial(arch: Architecture, planned: Sequence[Work]) -> list[TokenBatch]:
    """The largest micro-batch of those that are `planned`, as often as a step takes to show all that it holds."""
    work = max(planned, key=lambda work: (work.tokens, work.length))
    tokens = torch.randint(arch.vocabulary, (work.rows, work.length), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(work.length).remainder(max(1, work.length // 2)).expand_as(tokens).contiguous()  # packed
    batch = TokenBatch(tokens, tokens, positions, True, tokens.numel())
    return [batch] * (ACCUMULATED if work.accumulated else 1)


def candidates(recipe: Recipe) -> int:
    """What the loss is taken over at its widest, which is at the end if not before."""
    return recipe.loss.candidates(1.0)
