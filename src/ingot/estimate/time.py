"""How long a recipe will take: its FLOPs over what a device sustains."""

from __future__ import annotations

from ingot.estimate.devices import Device
from ingot.model.architecture import Architecture, flops_per_token, forward_flops
from ingot.model.memory import WIDE, Precision, Work, matrices, role_counts
from ingot.recipe import Recipe, Stage

# The share of a device's peak that training sustains, where nothing was measured: what well-tuned dense models reach
# on data-centre GPUs (PaLM reports 46%, Llama 3 38 to 43%); of a peak that was measured on this machine, more.
OF_DATA_SHEET, OF_MEASURED = 0.4, 0.6
GRID = 20  # points of a stage at which the loss is asked for its way


def stage_flops(recipe: Recipe, arch: Architecture, stage: Stage, begin: float = 0.0) -> float:
    """FLOPs of a training token in `stage`, which begins at the share `begin` of the run: its mean over the stage."""
    drawn = [recipe.loss.candidates(begin + stage.share * (place + 0.5) / GRID) for place in range(GRID)]
    micro = recipe.micro_tokens or stage.batch_tokens
    return sum(_token_flops(arch, stage.length, micro, number) for number in drawn) / GRID


def step_seconds(
    recipe: Recipe, arch: Architecture, device: Device, works: list[Work], precision: Precision, ranks: int = 1
) -> list[float]:
    """Seconds of a step in each stage on `ranks` such devices; what they say to each other is not counted."""
    sustained = device.peaks[precision] * (OF_MEASURED if device.measured else OF_DATA_SHEET)
    update = recipe.optimizer.update_flops(matrices(arch)) / sustained + _update_traffic(recipe, arch, device)
    seconds, begin = [], 0.0
    for stage, work in zip(recipe.stages, works, strict=True):
        token = stage_flops(recipe, arch, stage, begin) + _again(arch, work)
        seconds.append(stage.batch_tokens * token / (sustained * ranks) + update)
        begin += stage.share
    return seconds


def run_seconds(recipe: Recipe, steps: int, seconds: list[float]) -> float:
    """Seconds of a run of `steps` steps, each of stage i taking `seconds[i]`."""
    return steps * sum(stage.share * each for stage, each in zip(recipe.stages, seconds, strict=True))


def _token_flops(arch: Architecture, length: int, micro: int, drawn: int) -> float:
    return flops_per_token(arch, length, min(arch.vocabulary, micro + drawn) if drawn else None)


def _again(arch: Architecture, work: Work) -> float:
    """FLOPs of a token for blocks that are computed again: their forward pass once more."""
    if not work.recompute_every:
        return 0.0
    repeated = -(-arch.layers // work.recompute_every) / arch.layers
    return repeated * forward_flops(arch, (work.length + 1) / 2, 0)


def _update_traffic(recipe: Recipe, arch: Architecture, device: Device) -> float:
    """Seconds to read and write weights and optimizer state once, and to read the gradients."""
    if not device.bandwidth:
        return 0.0
    counts = role_counts(arch)
    return (3 * WIDE * sum(counts.values()) + 2 * recipe.optimizer.state_bytes(counts)) / device.bandwidth
