"""Optimizer state that takes less memory between two steps: narrow numbers, or a place beside the device.

A step works through the state piece by piece: widened to float32 on the device, updated, rounded and put back.
R rows and C columns of a matrix, N blocks of a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ingot.errors import UserError
from ingot.optim.muon import MuonAdamW, adamw_step, local
from ingot.optim.optimizer import BLOCK, PIECE, SMALL, State

if TYPE_CHECKING:
    from ingot.distributed import World

SIXTEEN = 1 << 16  # chances that rounding is decided by


class Format(ABC):
    """How the numbers of a running mean are kept: as tensors whose first dimension is that of the parameter."""

    endings: ClassVar[tuple[str, ...]] = ("",)
    """of the tensors' names"""

    @abstractmethod
    def blank(self, like: Tensor) -> dict[str, Tensor]:
        """The tensors of a mean of zeros, by the ending of their names; sharded where `like` is."""

    @abstractmethod
    def widened(self, kept: Mapping[str, Tensor]) -> Tensor:
        """Rows of the mean in float32."""

    @abstractmethod
    def narrowed(self, wide: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The tensors for rows `wide` (R, …) of a mean; noise (numel or more,): even among 0 … 65535."""


class Full(Format):
    """float32."""

    def blank(self, like: Tensor) -> dict[str, Tensor]:
        return {"": torch.zeros_like(like, dtype=torch.float32)}

    def widened(self, kept: Mapping[str, Tensor]) -> Tensor:
        return kept[""]

    def narrowed(self, wide: Tensor, noise: Tensor) -> dict[str, Tensor]:
        return {"": wide}


class Half(Format):
    """bfloat16, rounded up or down by chance, so that on average nothing is lost.

    The nearest one would lose every change that is less than half a step of the format: a mean over 1,000 steps would
    stand still at a fraction of its value (as for weights in Zamirai et al., 2020, arXiv:2010.06192).
    """

    def blank(self, like: Tensor) -> dict[str, Tensor]:
        return {"": torch.zeros_like(like, dtype=torch.bfloat16)}

    def widened(self, kept: Mapping[str, Tensor]) -> Tensor:
        return kept[""].float()

    def narrowed(self, wide: Tensor, noise: Tensor) -> dict[str, Tensor]:
        chance = noise[: wide.numel()].view(wide.shape)
        bits = wide.contiguous().view(torch.int32) + chance  # which carries into the upper half in proportion
        return {"": bits.bitwise_and_(-SIXTEEN).view(torch.float32).bfloat16()}


class Byte(Format):
    """One byte a number, as a share of the largest in its block of a row (Dettmers et al., 2022, arXiv:2110.02861).

    The shares are those of the paper's dynamic tree: decades, the upper ones finer. Rounded as in `Half`.
    """

    endings = ("", "_scale")

    def __init__(self, signed: bool, device: torch.device):
        self._shares = shares(signed).to(device)
        self._zero = int((self._shares == 0).nonzero())

    def blank(self, like: Tensor) -> dict[str, Tensor]:
        codes = torch.zeros_like(like, dtype=torch.uint8)
        scales = torch.zeros_like(like[..., ::BLOCK], dtype=torch.float32, memory_format=torch.contiguous_format)
        return {"": codes + self._zero, "_scale": scales}

    def widened(self, kept: Mapping[str, Tensor]) -> Tensor:
        codes, scales = kept[""], kept["_scale"]
        spread = scales.repeat_interleave(BLOCK, dim=-1)[..., : codes.shape[-1]]
        return self._shares[codes.int()] * spread

    def narrowed(self, wide: Tensor, noise: Tensor) -> dict[str, Tensor]:
        columns = wide.shape[-1]
        blocks = F.pad(wide, (0, -columns % BLOCK)).unflatten(-1, (-1, BLOCK))  # (R, N, BLOCK)
        scales = blocks.abs().amax(-1)
        relative = (blocks / scales.clamp(min=torch.finfo(torch.float32).tiny)[..., None]).flatten(-2)[..., :columns]
        relative = relative.contiguous()
        below = torch.bucketize(relative, self._shares, out_int32=True, right=True).sub_(1)
        below.clamp_(0, len(self._shares) - 2)
        low, high = self._shares[below], self._shares[below + 1]
        up = (relative - low) * SIXTEEN > (noise[: wide.numel()].view(wide.shape) + 0.5) * (high - low)
        return {"": (below + up).to(torch.uint8), "_scale": scales}


def shares(signed: bool) -> Tensor:
    """The 255 numbers from -1 or 0 to 1 that a byte stands for, ascending; 0 is among them."""
    positive: list[float] = []
    for decade in range(7):
        count = 2 ** (decade + (0 if signed else 1))  # numbers of this decade: the larger they are, the more
        low = 10.0 ** (decade - 7)
        positive += [low + 9 * low * place / count for place in range(1, count + 1)]
    negative = [-share for share in positive] if signed else []
    return torch.tensor(sorted([*negative, 0.0, *positive]))


class Lean(MuonAdamW):
    """`MuonAdamW` that keeps its running means in narrow numbers, in the host's memory (`offload`), or both.

    Vectors and other small parameters are kept as they are. Groups hold `update`, the number of steps done, from which
    rounding takes its chance: the same on every rank, or copies of a weight would drift apart. Raises UserError for an
    offload of sharded state.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], world: World | None = None, *, state: State, offload: bool):
        super().__init__(groups, world)
        if offload and any(hasattr(parameter, "to_local") for parameter in self.param_groups[0]["params"]):
            what = "state that is shared out among GPUs is not moved off them"
            raise UserError(what, where="optimizer.offload", mend="parallel=ddp or parallel=deepspeed")
        self._offload = offload
        device = self.param_groups[0]["params"][0].device
        means: dict[State, tuple[Format, Format]] = {
            "fp32": (Full(), Full()),
            "bf16": (Half(), Half()),
            "8bit": (Byte(True, device), Byte(False, device)),
        }
        self._mean, self._square = means[state]
        for group in self.param_groups:
            group["update"] = 0

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        small = [index for index, parameter in enumerate(parameters) if parameter.numel() < SMALL]
        if small:
            super()._adamw(group, [parameters[index] for index in small], [gradients[index] for index in small])
        noise = noise_of(group["update"], parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if parameter.numel() >= SMALL:
                self._adamw_by_pieces(group, parameter, gradient, noise)

    def _adamw_by_pieces(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor, noise: Tensor) -> None:
        weights, slopes = local([parameter, gradient])
        mean, square = self._kept(parameter, "exp_avg", self._mean), self._kept(parameter, "exp_avg_sq", self._square)
        place = weights.device if group["fused"] else "cpu"
        done = self.state[parameter].setdefault("step", torch.zeros((), device=place))
        for rows in pieces(weights):
            step = done.clone()  # the kernel counts it up with every piece
            wide = mean.read(rows), square.read(rows)
            adamw_step(group, [weights[rows]], [slopes[rows]], [wide[0]], [wide[1]], [step])
            mean.write(rows, wide[0], noise)
            square.write(rows, wide[1], SIXTEEN - 1 - noise)
        done += 1

    def _muon(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Stack by stack, so that no more than one of them is wide at once."""
        for indices in self._stacks(parameters):
            chosen = [parameters[index] for index in indices]
            kept = [self._kept(parameter, "momentum_buffer", self._mean) for parameter in chosen]
            at_rest = [dict(self.state[parameter]) for parameter in chosen]
            wide = [means.read(slice(None)) for means in kept]
            for parameter, buffer in zip(chosen, wide, strict=True):
                self.state[parameter]["momentum_buffer"] = buffer
            super()._muon(group, chosen, [gradients[index] for index in indices])
            noise = noise_of(group["update"], chosen)
            for parameter, means, buffer, state in zip(chosen, kept, wide, at_rest, strict=True):
                for rows in pieces(buffer):
                    means.write(rows, buffer[rows], noise)
                self.state[parameter] = state

    def _kept(self, parameter: Tensor, name: str, format: Format) -> Kept:
        """The mean `name` of `parameter`, which begins at zero."""
        state = self.state[parameter]
        if name not in state:
            state |= {name + ending: self._at_home(part) for ending, part in format.blank(parameter).items()}
        names = {ending: name + ending for ending in format.endings}
        return Kept(
            format, dict(zip(names, local(state[key] for key in names.values()), strict=True)), parameter.device
        )

    def _at_home(self, value: Tensor) -> Tensor:
        """Where it is kept: a GPU copies from pinned memory without waiting."""
        if not self._offload:
            return value
        return value.cpu().pin_memory() if value.is_cuda else value

    def state_dict(self) -> dict[str, Any]:
        """The state, narrow as it is kept."""
        if self._offload and torch.cuda.is_available():
            torch.cuda.synchronize()  # the last copies to the host may still be under way
        return super().state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; PyTorch's own way would widen it to the type of the weights."""
        super().load_state_dict({**state_dict, "state": {}})
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, parameter in zip(indices, parameters, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                if name != "step":
                    value = value.to(parameter.device, copy=True)
                    value = self._at_home(value) if parameter.numel() >= SMALL else value
                self.state[parameter][name] = value


@dataclass(frozen=True)
class Kept:
    """A running mean at rest, of which a few rows at a time are read and written on `device`."""

    format: Format
    tensors: Mapping[str, Tensor]
    device: torch.device

    def read(self, rows: slice) -> Tensor:
        """In float32; a change to it may or may not show here before it is written."""
        moved = {name: part[rows].to(self.device, non_blocking=True) for name, part in self.tensors.items()}
        return self.format.widened(moved)

    def write(self, rows: slice, wide: Tensor, noise: Tensor) -> None:
        """Round and put back."""
        for name, part in self.format.narrowed(wide, noise).items():
            self.tensors[name][rows].copy_(part, non_blocking=True)


def pieces(tensor: Tensor) -> Iterator[slice]:
    """Rows of `tensor` that together are at most `PIECE` numbers, one after another."""
    rows = max(1, PIECE * len(tensor) // max(1, tensor.numel()))
    return (slice(begin, begin + rows) for begin in range(0, len(tensor), rows))


def noise_of(update: int, parameters: Sequence[Tensor]) -> Tensor:
    """0 … 65535 at random for the numbers of any piece of `parameters`: a function of `update`."""
    most = max(min(parameter.numel(), max(PIECE, parameter[0].numel())) for parameter in parameters)
    device = parameters[0].device
    draw = torch.Generator(device).manual_seed(update)
    return torch.randint(SIXTEEN, (most,), generator=draw, device=device, dtype=torch.int32)
