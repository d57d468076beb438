"""What a recipe will hold in memory on a device, and how many rows of it fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from ingot.estimate.devices import Device
from ingot.model.architecture import Architecture
from ingot.model.memory import WIDE, DeviceKind, Footprint, Precision, Work, footprint, matrices, role_counts
from ingot.recipe.recipe import Recipe
from ingot.recipe.sections import Stage

# Bytes of a process that are not the run's: interpreter and PyTorch on a CPU (docs/lab-log.md); on a GPU, the CUDA
# context and the libraries' workspaces.
RUNTIME = {"cpu": 0.29e9, "cuda": 0.7e9}
TEXT = {"cpu": 0.06e9, "cuda": 0.0}  # what preparing the text and trying number formats leave in the host's memory
COMPILER = {"cpu": 0.15e9, "cuda": 0.0}  # what torch.compile's own modules take
STAGES: dict[str, Literal[0, 1, 2, 3]] = {"zero2": 2, "zero3": 3}  # the ways of sharing that keep parts of a whole
DEEPSPEED = "deepspeed"  # which updates a copy of its own of the weights, and holds them whole below stage 3


def works(
    recipe: Recipe, device: Device, *, precision: Precision, compiled: bool, ranks: int = 1, blocks: int | None = None
) -> list[Work]:
    """What one of `ranks` devices computes at once in each stage of the run.

    `blocks` of the model's context make a forward pass; none: as many as the recipe says, all of a step for auto.
    """
    asked = recipe.memory.micro_batch
    most = blocks or (None if asked == "auto" else asked)
    made = []
    for stage in recipe.stages:
        share = _blocks(recipe, stage, ranks)
        taken = min(share, most or share)
        made.append(
            Work(
                rows=taken * recipe.model.context // stage.length,
                length=stage.length,
                precision=precision,
                device=device.kind,
                accumulated=taken < share,
                recompute_every=recipe.memory.checkpoint_every,
                compiled=compiled,
                head_rows=_head_rows(recipe, taken * recipe.model.context),
                ranks=ranks,
                stage=_stage(recipe) if ranks > 1 else 0,
            )
        )
    return made


def needed(recipe: Recipe, arch: Architecture, work: Work) -> Footprint:
    """What `work` holds with the recipe's optimizer, at its fullest moment."""
    products = 2 if work.device == "cuda" else 4  # bytes a number in the optimizer's own products
    counts, parallel = role_counts(arch), recipe.parallel
    state = recipe.optimizer.state_bytes(counts)
    if parallel.kind == DEEPSPEED:
        state += WIDE * sum(counts.values())
    if work.device == "cuda" and (
        getattr(recipe.optimizer, "offload", False) or getattr(parallel, "offload", "") == "cpu"
    ):
        state = 0
    return footprint(arch, work, state=state, update=recipe.optimizer.update_bytes(matrices(arch), products))


def largest(recipe: Recipe, arch: Architecture, plans: Sequence[Work]) -> Footprint:
    """The largest footprint of the stages that `plans` are for."""
    return max((needed(recipe, arch, work) for work in plans), key=lambda each: each.total)


def process(recipe: Recipe, arch: Architecture, plans: Sequence[Work], kind: DeviceKind) -> float:
    """The bytes of a whole process at its fullest: the run's, and those of interpreter and libraries.

    A CPU's memory also holds the copy of the state that is saved while the next steps are made. The gaps take it in, as
    far as they go.
    """
    libraries = RUNTIME[kind] + TEXT[kind] + (COMPILER[kind] if any(work.compiled for work in plans) else 0.0)
    fullest = largest(recipe, arch, plans)
    copy = fullest.weights + fullest.optimizer if kind == "cpu" else 0.0
    return fullest.total + max(0.0, copy - fullest.gaps) + libraries


def room(device: Device) -> float:
    """The bytes of `device` that a run can fill."""
    return device.memory - RUNTIME[device.kind]


def fitting(recipe: Recipe, arch: Architecture, plan: Callable[[int], list[Work]], memory: float, ranks: int) -> int:
    """The blocks of a forward pass: as the recipe says, or all of a step's, halved until `memory` holds what they need.

    `plan` gives the works for so many blocks. 0: not even one block fits.
    """
    asked = recipe.memory.micro_batch
    blocks = max(_blocks(recipe, stage, ranks) for stage in recipe.stages) if asked == "auto" else asked
    while largest(recipe, arch, plan(blocks)).total > memory:
        if blocks == 1 or asked != "auto":
            return 0
        blocks = -(-blocks // 2)
    return blocks


def most_rows(recipe: Recipe, arch: Architecture, work: Work, memory: float) -> int:
    """The most rows of `work.length` tokens of which one forward pass fits into `memory`; 0: not even one."""
    least, most = 0, 1

    def fits(rows: int) -> bool:
        return needed(recipe, arch, replace(work, rows=rows)).total <= memory

    while most <= 2**20 and fits(most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least


def _blocks(recipe: Recipe, stage: Stage, ranks: int) -> int:
    """The blocks of a step that one device computes."""
    return -(-stage.batch_tokens // (recipe.model.context * ranks))


def _stage(recipe: Recipe) -> Literal[0, 1, 2, 3]:
    """How much the recipe's ranks share out."""
    if recipe.parallel.kind == DEEPSPEED:
        return 3 if getattr(recipe.parallel, "stage", 0) == 3 else 1
    return STAGES.get(recipe.parallel.kind, 0)


def _head_rows(recipe: Recipe, tokens: int) -> int | None:
    """The tokens of the vocabulary that the loss compares at most; none: all of them, at the end if not before."""
    drawn = recipe.loss.candidates(1.0)
    return tokens + drawn if drawn else None
