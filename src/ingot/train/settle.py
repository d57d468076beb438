"""What a run finds out before its first step and keeps to: whether it is compiled, and what its speed is."""

from __future__ import annotations

import statistics
import time
from collections import Counter

import torch

from ingot.data.loader import Loader, TokenBatch
from ingot.engine.device import has_compiler
from ingot.engine.native import Engine
from ingot.model.architecture import Architecture, flops_per_token
from ingot.recipe import Duration, Recipe
from ingot.train.timetable import mean_batch_tokens

LONG_ENOUGH = 120.0  # seconds that a run must promise to last before compiling it pays
PROBE_SECONDS = 4.0  # that each kind of step is measured for, when the duration is in minutes
PROBE_STEPS = 3  # at least
GRID = 20  # points of a stage at which the loss is asked for its way


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


def seconds_per_step(engine: Engine, loader: Loader, recipe: Recipe) -> list[float]:
    """The mean seconds of a step of each stage, measured on the first rows at a rate of 0: no weight changes.

    A loss that changes its cost during a stage is measured in each of its ways. For a run that has no past: the
    optimizer is new afterwards.
    """
    means, begin = [], 0.0
    for stage in recipe.stages:
        batches = loader.read(0, stage.batch_tokens // recipe.model.context, stage.length)
        grid = [begin + stage.share * (place + 0.5) / GRID for place in range(GRID)]
        ways = Counter(recipe.loss.candidates(done) for done in grid)
        means.append(sum(_seconds(engine, batches, way) * count for way, count in ways.items()) / GRID)
        begin += stage.share
    engine.renew_optimizer()
    return means


def _seconds(engine: Engine, batches: list[TokenBatch], candidates: int) -> float:
    seconds: list[float] = []
    end = time.perf_counter() + PROBE_SECONDS
    while time.perf_counter() < end or len(seconds) < PROBE_STEPS:
        began = time.perf_counter()
        engine.step(batches, factor=0.0, step=0, seed=0, candidates=candidates).loss.item()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
