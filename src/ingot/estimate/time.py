"""How long a recipe will take: its FLOPs over what a device sustains, and what comes beside them."""

from __future__ import annotations

from collections.abc import Iterator

from ingot.estimate.devices import Device
from ingot.model.architecture import Architecture, flops_per_token, forward_flops
from ingot.model.memory import WIDE, Precision, Work, kept_by_block, matrices, role_counts
from ingot.recipe.recipe import Recipe
from ingot.recipe.sections import Stage
from ingot.rhythm import Duration

# The share of a device's peak that training sustains, where nothing was measured: what well-tuned dense models reach
# on data-centre GPUs (PaLM reports 46%, Llama 3 38 to 43%); of a peak that was measured on this machine, more.
OF_DATA_SHEET, OF_MEASURED = 0.4, 0.6
# A CPU whose bandwidth was measured, too: products come near their peak, then all that a step keeps passes through
# memory so many times, and each block costs so many seconds of starting operations (docs/lab-log.md).
OF_PRODUCTS, PASSES, STARTING = 0.8, 10.0, 3e-3
GRID = 20  # points of a stage at which the loss is asked for its way
# What compiling takes on two cores, its code not yet in the cache, and the time of a compiled step beside an eager one
# (docs/lab-log.md: 33 to 67 seconds where nothing else ran; 0.84).
COMPILING, COMPILED_STEP = 50.0, 0.84


def stage_flops(recipe: Recipe, arch: Architecture, stage: Stage, begin: float = 0.0) -> float:
    """FLOPs of a training token in `stage`, which begins at the share `begin` of the run: its mean over the stage."""
    return sum(_flops_at(recipe, arch, stage, done) for done in _points(stage, begin)) / GRID


def step_flops(recipe: Recipe, arch: Architecture) -> float:
    """FLOPs of a training step: the mean over the run."""
    total, begin = 0.0, 0.0
    for stage in recipe.stages:
        total += stage.share * stage.batch_tokens * stage_flops(recipe, arch, stage, begin)
        begin += stage.share
    return total


def step_seconds(
    recipe: Recipe, arch: Architecture, device: Device, works: list[Work], precision: Precision, ranks: int = 1
) -> list[float]:
    """Seconds of a step in each stage on `ranks` such devices; what they say to each other is not counted."""
    seconds, begin = [], 0.0
    for stage in recipe.stages:
        at = [seconds_at(recipe, arch, device, works, precision, done, ranks) for done in _points(stage, begin)]
        seconds.append(sum(at) / GRID)
        begin += stage.share
    return seconds


def seconds_at(
    recipe: Recipe,
    arch: Architecture,
    device: Device,
    works: list[Work],
    precision: Precision,
    done: float,
    ranks: int = 1,
) -> float:
    """Seconds of the step at the share `done` of the run."""
    stage, work = _stage_at(recipe, works, done)
    token = _flops_at(recipe, arch, stage, done) + _again(arch, work)
    products = stage.batch_tokens * token / ranks + recipe.optimizer.update_flops(matrices(arch))
    update = _update_traffic(recipe, arch, device)
    if device.kind == "cpu" and device.measured and device.bandwidth:
        passes = -(-stage.batch_tokens // (work.tokens * ranks))
        traffic = stage.batch_tokens / ranks * (arch.layers * kept_by_block(arch, work) + _logits(arch, work))
        through = PASSES * traffic / device.bandwidth + passes * arch.layers * STARTING
        return products / (OF_PRODUCTS * device.peaks[precision]) + through + update
    return products / ((OF_MEASURED if device.measured else OF_DATA_SHEET) * device.peaks[precision]) + update


def worth_compiling(recipe: Recipe, seconds: float) -> bool:
    """Whether compiling gains more time than it takes, where training takes so many `seconds` without.

    A duration in minutes lasts as long with compiled steps, which are more then: what they would have taken counts.
    """
    duration = Duration.parse(recipe.train.duration)
    without = duration.amount * 60 / COMPILED_STEP if duration.unit == "minute" else seconds
    return without * (1 - COMPILED_STEP) > COMPILING


def run_seconds(recipe: Recipe, steps: int, seconds: list[float]) -> float:
    """Seconds of a run of `steps` steps, each of stage i taking `seconds[i]`."""
    return steps * sum(stage.share * each for stage, each in zip(recipe.stages, seconds, strict=True))


def _points(stage: Stage, begin: float) -> Iterator[float]:
    return (begin + stage.share * (place + 0.5) / GRID for place in range(GRID))


def _stage_at(recipe: Recipe, works: list[Work], done: float) -> tuple[Stage, Work]:
    end = 0.0
    for stage, work in zip(recipe.stages, works, strict=True):
        end += stage.share
        if done < end:
            return stage, work
    return recipe.stages[-1], works[-1]


def _flops_at(recipe: Recipe, arch: Architecture, stage: Stage, done: float) -> float:
    drawn, micro = recipe.loss.candidates(done), recipe.micro_tokens or stage.batch_tokens
    return flops_per_token(arch, stage.length, min(arch.vocabulary, micro + drawn) if drawn else None)


def _again(arch: Architecture, work: Work) -> float:
    """FLOPs of a token for blocks that are computed again: their forward pass once more."""
    if not work.recompute_every:
        return 0.0
    repeated = -(-arch.layers // work.recompute_every) / arch.layers
    return repeated * forward_flops(arch, (work.length + 1) / 2, 0)


def _logits(arch: Architecture, work: Work) -> float:
    """Bytes of a token's logits."""
    return WIDE * min(work.head_rows or arch.vocabulary, arch.vocabulary)


def _update_traffic(recipe: Recipe, arch: Architecture, device: Device) -> float:
    """Seconds to read and write weights and optimizer state once, and to read the gradients."""
    if not device.bandwidth:
        return 0.0
    counts = role_counts(arch)
    return (3 * WIDE * sum(counts.values()) + 2 * recipe.optimizer.state_bytes(counts)) / device.bandwidth
