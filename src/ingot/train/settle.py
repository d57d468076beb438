"""What a run finds out before its first step and keeps to: whether it is compiled, its speed, and its steps."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ingot.data.loader import BlockLoader, TokenBatch
from ingot.engine.compiled import compile_kept
from ingot.engine.device import Company, has_compiler
from ingot.engine.engine import Engine
from ingot.errors import UserError
from ingot.estimate.time import worth_compiling
from ingot.model.architecture import Architecture, flops_per_token
from ingot.recipe.recipe import Recipe
from ingot.rhythm import Duration
from ingot.train.loop import State
from ingot.train.meter import Meter
from ingot.train.timetable import mean_batch_tokens, steps_for, steps_for_minutes
from ingot.train.waiting import waiting

COMPILED = "compiled"  # folder inside the recipe's cache
PROBE_SECONDS = 10.0  # that the speed is measured for, when the duration is in minutes
PROBE_SHARE = 0.1  # of the duration, at most
PROBE_ROUNDS = 4  # of all kinds of step, at least; the first warms up
PATIENCE = 3  # times as long is measured on a machine that is not calm
ALONE = 0.1  # share of the processors that others may use on a calm machine
STEADY = 1.2  # how far the median step of a calm machine may lie above the quickest
GRID = 20  # points of a stage at which the loss is asked for its way


def planned_steps(recipe: Recipe, state: State, *, epoch_tokens: int, parameters: int) -> int | None:
    """The steps that the duration comes to; None for minutes on a machine whose speed is not known yet.

    Raises UserError for a duration that the run, which stands at `state`, has passed already.
    """
    duration = Duration.parse(recipe.train.duration)
    if recipe.train.steps:
        return recipe.train.steps
    if duration.unit == "minute" and state.step:
        return max(state.step, round(duration.amount * 60 * state.step / state.seconds))
    steps = steps_for(duration, recipe.stages, epoch_tokens=epoch_tokens, parameters=parameters)
    if steps and steps < state.step:
        raise UserError(
            f"{recipe.train.duration} are {steps:,} steps, and this run has made {state.step:,} already",
            where=f"{recipe.folder}: train.duration",
            mend="give a longer one, or begin again with --fresh",
        )
    return steps


def wants_compiled(
    recipe: Recipe, arch: Architecture, steps: int | None, peak: Callable[[], float], device: torch.device
) -> bool:
    """Whether to compile; by itself where a compiler is at hand and the whole run promises to gain by it.

    Without `steps` the duration is in minutes; with them, half of `peak` (FLOP/s) is taken for the speed.
    """
    if recipe.train.compile != "auto":
        return recipe.train.compile == "yes"
    seconds = 0.0
    if steps is not None:
        tokens = steps * mean_batch_tokens(recipe.stages)
        seconds = tokens * flops_per_token(arch, arch.context) / (peak() / 2)
    return worth_compiling(recipe, seconds) and has_compiler(device)


def compiles(engine: Engine, recipe: Recipe, meter: Meter, *, again: bool) -> bool:
    """Compile for every shape that a step will have, and whether it worked: a failure costs a line, not the run.

    `again`: the run goes on, and what it compiled when it began is likely to be kept still.
    """
    batches, folder = shapes(recipe, engine.world.size), recipe.cache / COMPILED
    what = "loading the compiled model" if again else "compiling the model"
    cost = f"from {folder}, which takes seconds" if again else "minutes at first, seconds once it is in the cache"
    meter.say(f"{what} ({cost}; none of it counts as training)")
    began = time.monotonic()
    with waiting(meter.console, what, "shapes", len(batches)) as done:
        problem = compile_kept(engine, batches, folder, done)
    if engine.world.any(bool(problem)):
        engine.uncompile()
        problem = problem or "another process could not"
        meter.say(f"going on without compilation: {problem}")
    else:
        meter.say(f"the compiled model is ready after {time.monotonic() - began:.0f} seconds")
    return not problem


def shapes(recipe: Recipe, ranks: int = 1) -> list[TokenBatch]:
    """A batch of every shape that a step of the run can have: rows that are one document, and packed ones."""
    batches = []
    for stage in recipe.stages:
        share = -(-stage.batch_tokens // recipe.model.context // ranks) * recipe.model.context  # of a rank
        tokens = min(recipe.micro_tokens or share, share)
        zeros = torch.zeros(tokens // stage.length, stage.length, dtype=torch.long)
        positions = torch.arange(stage.length).expand_as(zeros).contiguous()
        batches += [TokenBatch(zeros, zeros, positions, packed, zeros.numel()) for packed in (False, True)]
    return batches


@dataclass
class Kind:
    """Steps of one stage that take the loss in one way: the `share` of the stage that they are, and their seconds."""

    stage: int
    share: float
    batches: list[TokenBatch]
    candidates: int
    seconds: list[float] = field(default_factory=list)

    @property
    def pace(self) -> float:
        """Seconds of the middle step: what slows the machine for a moment does not count."""
        return statistics.median(self.seconds)

    @property
    def steady(self) -> bool:
        """Whether most steps took about as long as the quickest."""
        return self.pace < STEADY * min(self.seconds)


def measured_steps(engine: Engine, loader: BlockLoader, recipe: Recipe, meter: Meter) -> int:
    """The steps that fit into the minutes of the recipe's duration, at the speed that is measured here."""
    minutes = Duration.parse(recipe.train.duration).amount
    kinds = _kinds(loader, recipe)
    with waiting(meter.console, "measuring the speed"):
        others = measure(engine, kinds, min(PROBE_SECONDS, PROBE_SHARE * minutes * 60))
    seconds = [0.0] * len(recipe.stages)
    for kind in kinds:
        seconds[kind.stage] += kind.pace * kind.share
    steps = steps_for_minutes(minutes, recipe.stages, seconds)
    line = f"{recipe.train.duration} come to {steps:,} steps of {minutes * 60 / steps:.2g} seconds, by a trial"
    least, most = (extreme(extreme(kind.seconds) for kind in kinds) for extreme in (min, max))
    if others >= ALONE:
        line += f" while others had {others:.0%} of the processors: it may take less time, or more"
    elif not all(kind.steady for kind in kinds):
        line += f" in which they took {least:.2g} to {most:.2g}: it may take less time, or more"
    meter.say(line)
    return steps


def measure(engine: Engine, kinds: Sequence[Kind], seconds: float) -> float:
    """Time steps of all `kinds` in turn for about so many seconds, or longer where others compute or steps differ.

    The share of the processors that others had. Steps are made at a rate of 0, so that no weight changes. For a run
    that has no past: the optimizer is new then.
    """
    company, began, rounds, others, calm = Company(), time.perf_counter(), 0, 0.0, True

    def goes_on() -> bool:
        return rounds < PROBE_ROUNDS or time.perf_counter() - began < seconds * (1 if calm else PATIENCE)

    while engine.world.agreed(goes_on()):
        for kind in kinds:
            before = time.perf_counter()
            engine.step(kind.batches, factor=0.0, step=0, seed=0, candidates=kind.candidates).loss.item()
            if rounds:
                kind.seconds.append(time.perf_counter() - before)
        rounds += 1
        if rounds >= PROBE_ROUNDS:
            others = company.share()
            calm = others < ALONE and all(kind.steady for kind in kinds)
    engine.renew_optimizer()
    return others


def _kinds(loader: BlockLoader, recipe: Recipe) -> list[Kind]:
    """Every kind of step of the run, on its first rows: a loss may change its cost during a stage."""
    kinds, begin = [], 0.0
    for number, stage in enumerate(recipe.stages):
        batches = loader.read(0, stage.batch_tokens // recipe.model.context, stage.length)
        grid = [begin + stage.share * (place + 0.5) / GRID for place in range(GRID)]
        ways = Counter(recipe.loss.candidates(done) for done in grid)
        kinds += [Kind(number, count / GRID, batches, way) for way, count in ways.items()]
        begin += stage.share
    return kinds
