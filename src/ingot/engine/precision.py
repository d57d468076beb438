"""The number format of the matrix products and the attention kernel: chosen by running them, and fp16's loss scale."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ingot.distributed import World
from ingot.engine.compiled import reason
from ingot.engine.device import matmul_rates
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.loss import token_loss

NARROW = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
"""what autocast multiplies in, by precision; fp8 narrows further inside the layers that it replaces"""
SCALE, LARGEST_SCALE, CALM_STEPS = 2.0**16, 2.0**24, 2000  # fp16's loss scale at first, at most, and until it doubles
CHOICE_SIDE, CHOICE_TURNS = {"cpu": 512, "cuda": 2048}, 10  # of the matrices by which two formats are compared
NEEDLESS = 1.2  # how much faster than bf16 a format that needs a loss scale must be
KERNELS = ("cudnn", "flash", "efficient")  # of attention, in the order in which they are given up; plain products stay
TRIAL_TOKENS, TRIAL_SIZE = 128, 64  # of the small model that a format and a kernel are tried with
FAR_LOSS, FAR_GRADIENT = 0.05, 0.25  # relative differences from float32 that no rounding explains
FP8_CAPABILITY = (8, 9)  # of the first GPUs that multiply in fp8


class Scaler:
    """fp16's loss scale: gradients too small for the format are multiplied, and too large ones seen and skipped.

    Halved where a gradient overflows, doubled after 2,000 steps without (Micikevicius et al., 2018, arXiv:1710.03740).
    For the other formats the scale is 1 and stays so.
    """

    def __init__(self, precision: str):
        self.active = precision == "fp16"
        self.scale = SCALE if self.active else 1.0
        self.calm = 0  # steps since the scale last changed

    def overflowed(self, loss: float, gradient_norm: float) -> bool:
        """Learn from a step; whether its gradient overflowed because of the scale, which is smaller the next time.

        A loss that is no number has another cause, and so has a gradient that overflows without a scale.
        """
        if not self.active or not math.isfinite(loss):
            return False
        if not math.isfinite(gradient_norm):
            overflow, self.calm = self.scale > 1.0, 0
            self.scale = max(1.0, self.scale / 2)
            return overflow
        self.calm += 1
        if self.calm >= CALM_STEPS:
            self.scale, self.calm = min(LARGEST_SCALE, self.scale * 2), 0
        return False

    def state(self) -> dict[str, Any]:
        """What `load_state` needs."""
        return {"scale": self.scale, "calm": self.calm}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`, where it was of the same format; otherwise begin anew."""
        if self.active and state["scale"] > 1.0:
            self.scale, self.calm = state["scale"], state["calm"]


def choose_precision(asked: str, arch: Architecture, world: World, say: Callable[[str], None]) -> str:
    """`asked`, or for `auto` the fastest format on this device that trains a small model of the shape of `arch`.

    Attention kernels that fail there are switched off for this process. `say` hears in one line of each thing that
    did not work. The same on every rank. Raises UserError for a format that this device does not have.
    """
    if asked != "auto":
        require(asked, world.device)
    order = [asked] if asked != "auto" else by_speed(world)
    problems: list[str] = []
    for precision in order:
        for given_up in range(len(KERNELS) + 1):
            use_kernels(KERNELS[given_up:])
            problem = attempt(arch, world.device, precision)
            if not world.any(bool(problem)):
                if problems:
                    without = f" without {' and '.join(KERNELS[:given_up])} attention" if given_up else ""
                    say(f"{problems[0]}: going on in {precision}{without}")
                return precision
            problems.append(f"{precision} does not work here ({problem or 'on another rank'})")
    raise UserError(problems[0], where="train.precision", mend="" if asked == "auto" else "train.precision=auto")


def require(precision: str, device: torch.device) -> None:
    """Raise UserError where `device` has no use for `precision`, or where what it needs is not installed."""
    if precision == "fp16" and device.type == "cpu":
        what, mend = "a CPU takes hundreds of times as long in fp16", "train.precision=auto"
        raise UserError(what, where="train.precision", mend=mend)
    if precision == "fp8":
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
            what, mend = "fp8 needs a GPU of the Hopper kind or newer", "train.precision=auto"
            raise UserError(what, where="train.precision", mend=mend)
        _float8()


def by_speed(world: World) -> list[str]:
    """The formats that this device has, the fastest first, measured now; on the main rank, for all.

    They take turns and their best times count, so that a machine that is busy now and then does not decide.
    """
    device = world.device
    formats = ["bf16", "fp32", "fp16"] if device.type == "cuda" else ["fp32", "bf16"]
    side = CHOICE_SIDE.get(device.type, CHOICE_SIDE["cpu"])
    running = {precision: matmul_rates(device, precision, side) for precision in formats}
    best = dict.fromkeys(formats, 0.0)
    for _ in range(CHOICE_TURNS):
        for precision, rates in running.items():
            best[precision] = max(best[precision], next(rates))
    if "fp16" in best:
        best["fp16"] /= NEEDLESS
    return world.agreed(sorted(formats, key=lambda precision: -best[precision]))


def use_kernels(names: Sequence[str]) -> None:
    """Let attention choose among the kernels `names` and plain matrix products, in this process from now on."""
    torch.backends.cuda.enable_cudnn_sdp("cudnn" in names)
    torch.backends.cuda.enable_flash_sdp("flash" in names)  # the CPU's own goes by this name, too
    torch.backends.cuda.enable_mem_efficient_sdp("efficient" in names)
    torch.backends.cuda.enable_math_sdp(True)


def attempt(arch: Architecture, device: torch.device, precision: str) -> str:
    """Forward and backward of a small model of the shape of `arch`; empty, or what went wrong with `precision`.

    Its heads are those of `arch`, so that attention takes the same kernel: with and without a mask, and with dropout.
    """
    try:
        for packed in (False, True):
            for dropout in sorted({0.0, arch.dropout}):
                trial = Trial(small(arch, dropout), device, packed)
                loss, gradient = trial.run(precision)
                if not (loss.isfinite() and gradient.isfinite().all()):
                    return "the loss or its gradient is not a number"
                if dropout:
                    continue  # random: nothing to compare with
                with kernels_off():
                    exact_loss, exact_gradient = trial.run("fp32")
                far = (gradient - exact_gradient).norm() > FAR_GRADIENT * exact_gradient.norm()
                if far or abs(loss - exact_loss) > FAR_LOSS * abs(exact_loss):
                    return "its gradient is far from that of float32"
    except UserError:
        raise
    except Exception as error:  # whatever a kernel fails with, another one may not
        return reason(error)
    return ""


def small(arch: Architecture, dropout: float) -> Architecture:
    """A model of one layer that has the heads, norms and positions of `arch`, and little else."""
    groups = arch.heads // arch.kv_heads
    changes = {
        "vocabulary": TRIAL_SIZE,
        "context": min(arch.context, TRIAL_TOKENS),
        "layers": 1,
        "hidden_size": TRIAL_SIZE,
        "mlp_size": TRIAL_SIZE,
        "heads": groups,
        "kv_heads": 1,
        "dropout": dropout,
    }
    return arch.model_copy(update=changes)


@dataclass(frozen=True)
class Trial:
    """One batch for one small model: `run` is the same work in any precision."""

    arch: Architecture
    device: torch.device
    packed: bool

    def run(self, precision: str) -> tuple[Tensor, Tensor]:
        """The mean loss, and all gradients in one vector. PyTorch's own random streams stay where they are."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            return self._run(precision)

    def _run(self, precision: str) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(1)
        model = Decoder(self.arch, generator=draw).to(self.device)
        if precision == "fp8":
            to_fp8(model)
        length = self.arch.context
        tokens = torch.randint(self.arch.vocabulary, (2, length + 1), generator=draw).to(self.device)
        positions = torch.arange(length, device=self.device).expand(2, -1)
        if self.packed:
            positions = positions % max(1, length // 2)  # two documents in each row
        with narrowed(precision, self.device):
            hidden = model.hidden(tokens[:, :-1], positions, packed=self.packed).flatten(0, 1)
            loss = token_loss(hidden, model.head_weight, tokens[:, 1:].flatten()) / (2 * length)
        loss.backward()
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        return loss.detach(), torch.cat(gradients)


def narrowed(precision: str, device: torch.device) -> torch.autocast:
    """Matrix products in `precision` within the block."""
    narrow = NARROW[precision]
    return torch.autocast(device.type, narrow, enabled=narrow is not None)


@contextlib.contextmanager
def kernels_off() -> Iterator[None]:
    """Attention by plain matrix products within the block."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield


def to_fp8(model: Decoder) -> None:
    """Have the blocks' matrices multiplied in fp8 where both sides are multiples of 16, as the hardware wants them.

    Names, shapes and formats of the parameters stay. Raises UserError where torchao is missing.
    """
    _float8().convert_to_float8_training(
        model.blocks,
        module_filter_fn=lambda module, name: (
            isinstance(module, nn.Linear) and module.in_features % 16 == 0 and module.out_features % 16 == 0
        ),
    )


def _float8() -> Any:
    try:
        import torchao.float8
    except ImportError:
        raise UserError("fp8 needs torchao", where="train.precision", mend=pip_install("fp8")) from None
    return torchao.float8
