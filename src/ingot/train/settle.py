"""What a run finds out before its first step and keeps to: whether it is compiled, and what its speed is."""

from __future__ import annotations

import statistics
import time

import torch

from ingot.data.loader import Loader, TokenBatch
from ingot.engine.device import has_compiler
from ingot.engine.native import Engine
from ingot.model.architecture import Architecture, flops_per_token
from ingot.recipe import Duration, Recipe, Stage
from ingot.train.timetable import mean_batch_tokens

LONG_ENOUGH = 120.0  # seconds that a run must promise to last before compiling it pays
PROBE_SECONDS = 4.0  # that the speed of each stage is measured for, when the duration is in minutes
PROBE_STEPS = 3  # at least


def wants_compiled(recipe: Recipe, arch: Architecture, steps: int | None, peak: float, device: torch.device) -> bool:
    """Whether to compile; by itself where a compiler is at hand and the whole run promises to last long enough.

    Without `steps` the duration is in minutes; with them, half of `peak` (FLOP/s) is taken for the speed.
    """
    if recipe.train.compile != "auto":
        return recipe.train.compile == "yes"
    if steps is None:
        seconds = Duration.parse(recipe.train.duration).amount * 60
    else:
        tokens = steps * mean_batch_tokens(recipe.stages)
        seconds = tokens * flops_per_token(arch, arch.context) / (peak / 2)
    return seconds > LONG_ENOUGH and has_compiler(device)


def shapes(recipe: Recipe) -> list[TokenBatch]:
    """A batch of every shape that a step of the run can have: rows that are one document, and packed ones."""
    batches = []
    for stage in recipe.stages:
        tokens = recipe.train.micro_tokens or stage.batch_tokens
        zeros = torch.zeros(tokens // stage.length, stage.length, dtype=torch.long)
        positions = torch.arange(stage.length).expand_as(zeros).contiguous()
        batches += [TokenBatch(zeros, zeros, positions, packed, zeros.numel()) for packed in (False, True)]
    return batches


def seconds_per_step(engine: Engine, loader: Loader, stage: Stage, blocks: int) -> float:
    """Measured on the first rows at a rate of 0, which leaves the weights as they are; for a run that has no past."""
    batches = loader.read(0, blocks, stage.length)
    seconds: list[float] = []
    end = time.perf_counter() + PROBE_SECONDS
    while time.perf_counter() < end or len(seconds) < PROBE_STEPS:
        began = time.perf_counter()
        engine.step(batches, factor=0.0, step=0, seed=0).loss.item()
        seconds.append(time.perf_counter() - began)
    engine.renew_optimizer()
    return statistics.median(seconds[1:])
