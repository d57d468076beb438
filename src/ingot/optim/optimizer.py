"""The optimizer family: configurations that build a torch optimizer over the roles of a model's parameters.

A role is what a parameter does in the network: "embedding", "head", "matrix" (any other matrix) or "vector" (norms and
biases). This file loads no PyTorch until an optimizer is built.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from ingot.config.config import Choice

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ingot.distributed import World

Groups = Mapping[str, Sequence[tuple[str, "nn.Parameter"]]]  # role -> its named parameters
Matrices = tuple[int, int, int]  # rows, columns, and how many there are of that shape
State = Literal["fp32", "bf16", "8bit"]  # the numbers that running means are kept in between two steps

ROLES = ("matrix", "embedding", "head", "vector")  # the order of an optimizer's groups
STACK_NUMBERS = 2**26  # most numbers in one stack of Muon's matrices, which bounds the memory that a step takes
BLOCK = 256  # numbers of a row that share a scale where the state has 8 bits
SMALL = 4096  # fewer numbers than this are not worth narrowing
PIECE = 2**21  # most numbers of narrow state that are wide at once
PIECE_BYTES = 48  # what an update takes for one of them
FUSED_DEVICES = {"cpu", "cuda", "mps", "xpu"}  # where torch's AdamW has a fused kernel


def _below_one(betas: tuple[float, float]) -> tuple[float, float]:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"each of the betas lies in [0, 1), unlike {betas}; common are [0.9, 0.95]")
    return betas


class Optimizer(Choice):
    """How a gradient becomes an update."""

    @abstractmethod
    def build(self, groups: Groups, world: World | None = None) -> torch.optim.Optimizer:
        """The torch optimizer of `groups`; each of its param groups is one role and carries its `peak_lr`.

        A `world` of several steps together, on gradients that are summed already, or on this rank's shards of them.
        """

    @abstractmethod
    def state_bytes(self, counts: Mapping[str, int]) -> int:
        """The memory that its state takes for so many numbers of each role."""

    def update_bytes(self, matrices: Sequence[Matrices], width: int) -> int:
        """The memory that an update takes for itself, with products of `width` bytes a number."""
        return 0

    def update_flops(self, matrices: Sequence[Matrices]) -> int:
        """The FLOPs of an update's matrix products."""
        return 0


class Adam(Optimizer):
    """What the kinds of AdamW share (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""

    lr: float = Field(default=1e-3, ge=0)
    """peak learning rate"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay of the running means of the gradient and of its square, per step"""
    eps: float = Field(default=1e-8, gt=0)
    """added to the root of the mean square"""
    weight_decay: float = Field(default=0.1, ge=0)
    """share of a weight taken away per step and unit of learning rate; matrices, embeddings and head, not vectors"""
    offload: bool = False
    """running means lie in the host's memory and visit the GPU piece by piece; saves memory there, costs time"""

    _decays = field_validator("betas")(_below_one)

    @property
    @abstractmethod
    def numbers(self) -> State:
        """What the running means are kept in."""

    def build(self, groups: Groups, world: World | None = None) -> torch.optim.Optimizer:
        """AdamW for every role, fused where the device has that kernel; vectors do not decay."""
        common = {"lr": self.lr, "peak_lr": self.lr, "betas": self.betas, "eps": self.eps}
        made = [
            {
                "params": list(groups[role]),
                "role": role,
                "weight_decay": 0.0 if role == "vector" else self.weight_decay,
                "fused": has_fused_kernel(groups),
                **common,
            }
            for role in _present(groups)
        ]
        return _made(made, world, self.numbers, self.offload)

    def state_bytes(self, counts: Mapping[str, int]) -> int:
        """Two running means of every gradient, those of vectors in float32."""
        return round(2 * _mean_bytes(counts, self.numbers))

    def update_bytes(self, matrices: Sequence[Matrices], width: int) -> int:
        """A piece of the means, where they are not wide and in place already."""
        return PIECE * PIECE_BYTES if self.offload or self.numbers != "fp32" else 0


class AdamW(Adam, name="adamw"):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""

    state: Literal["fp32", "bf16"] = "fp32"
    """number format of the running means; bf16, rounded by chance, takes half the memory"""

    @property
    def numbers(self) -> State:
        """As said."""
        return self.state


class AdamW8bit(Adam, name="adamw8bit"):
    """AdamW whose running means take a byte a number (Dettmers et al., 2022, arXiv:2110.02861)."""

    @property
    def numbers(self) -> State:
        """8 bits, and a scale for every 256 numbers."""
        return "8bit"


class Muon(Optimizer, name="muon"):
    """Muon for the matrices, AdamW for all else (Jordan et al., 2024, kellerjordan.github.io/posts/muon)."""

    lr: float = Field(default=0.02, ge=0)
    """peak learning rate of the matrices: about the spectral norm of one update"""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """decay of the running mean of the gradient, per step"""
    momentum_start: float = Field(default=0.85, ge=0, lt=1)
    """momentum at the first step, from which it rises to `momentum` in a straight line"""
    momentum_steps: int = Field(default=200, ge=0)
    """steps that the rise of the momentum takes"""
    nesterov: bool = True
    """whether the update looks one step ahead of the momentum"""
    rounds: int = Field(default=5, ge=1)
    """rounds of Newton-Schulz"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """number format of the Newton-Schulz products; auto: bfloat16 on a GPU, float32 elsewhere"""
    weight_decay: float = Field(default=0.02, ge=0)
    """share of a matrix taken away per step and unit of learning rate"""
    embedding_lr: float = Field(default=0.05, ge=0)
    """peak learning rate of the embeddings (AdamW)"""
    head_lr: float = Field(default=0.015, ge=0)
    """peak learning rate of the output head (AdamW)"""
    vector_lr: float = Field(default=0.01, ge=0)
    """peak learning rate of norms and biases (AdamW)"""
    betas: tuple[float, float] = (0.8, 0.95)
    """AdamW: decay of the running means of the gradient and of its square, per step"""
    eps: float = Field(default=1e-10, gt=0)
    """AdamW: added to the root of the mean square"""
    rest_weight_decay: float = Field(default=0.0, ge=0)
    """AdamW: share of an embedding or head weight taken away per step and unit of learning rate"""
    state: Literal["fp32", "bf16"] = "fp32"
    """number format of the running means; bf16, rounded by chance, takes half the memory"""
    offload: bool = False
    """running means lie in the host's memory and visit the GPU in parts; saves memory there, costs time"""

    _decays = field_validator("betas")(_below_one)

    def build(self, groups: Groups, world: World | None = None) -> torch.optim.Optimizer:
        """One optimizer whose "matrix" group takes Muon's updates and whose other groups take AdamW's."""
        muon = {
            "momentum": self.momentum,
            "momentum_peak": self.momentum,
            "momentum_start": self.momentum_start,
            "momentum_steps": self.momentum_steps,
            "nesterov": self.nesterov,
            "rounds": self.rounds,
            "precision": self.precision,
        }
        adamw = {"betas": self.betas, "eps": self.eps, "fused": has_fused_kernel(groups)}
        rules: dict[str, dict[str, Any]] = {
            "matrix": {**muon, "peak_lr": self.lr, "weight_decay": self.weight_decay},
            "embedding": {**adamw, "peak_lr": self.embedding_lr, "weight_decay": self.rest_weight_decay},
            "head": {**adamw, "peak_lr": self.head_lr, "weight_decay": self.rest_weight_decay},
            "vector": {**adamw, "peak_lr": self.vector_lr, "weight_decay": 0.0},
        }
        made = [
            {"params": list(groups[role]), "role": role, "lr": rules[role]["peak_lr"], **rules[role]}
            for role in _present(groups)
        ]
        return _made(made, world, self.state, self.offload)

    def state_bytes(self, counts: Mapping[str, int]) -> int:
        """One running mean of a matrix's gradient, two of any other; those of vectors in float32."""
        twice = {**counts, "matrix": counts["matrix"] / 2}
        return round(2 * _mean_bytes(twice, self.state))

    def update_bytes(self, matrices: Sequence[Matrices], width: int) -> int:
        """The largest stack with what the iteration makes of it, and its momentum made wide where it is not."""
        return max((self._stack_bytes(*shape, width) for shape in matrices), default=0)

    def update_flops(self, matrices: Sequence[Matrices]) -> int:
        """Three products in each round of the iteration."""
        sides = [(min(rows, columns), max(rows, columns), number) for rows, columns, number in matrices]
        return sum(2 * self.rounds * number * short * short * (2 * long + short) for short, long, number in sides)

    def _stack_bytes(self, rows: int, columns: int, number: int, width: int) -> int:
        """In float32: the momentum, its stack, and one more; in `width`: two iterates and three squares."""
        stacked = min(number, max(1, STACK_NUMBERS // (rows * columns)))
        numbers, squares = stacked * rows * columns, stacked * min(rows, columns) ** 2
        return 8 * numbers + max((4 + width) * numbers, width * (2 * numbers + 3 * squares))


def _made(groups: Sequence[dict[str, Any]], world: World | None, state: State, offload: bool) -> torch.optim.Optimizer:
    """The torch optimizer of `groups` that keeps its state so."""
    if state == "fp32" and not offload:
        from ingot.optim.muon import MuonAdamW

        return MuonAdamW(groups, world)
    from ingot.optim.lean import Lean

    return Lean(groups, world, state=state, offload=offload)


def _mean_bytes(counts: Mapping[str, float], state: State) -> float:
    """The memory that one running mean of so many numbers of each role takes."""
    a_number = {"fp32": 4, "bf16": 2, "8bit": 1 + 4 / BLOCK}[state]
    return a_number * sum(counts.values()) + (4 - a_number) * counts.get("vector", 0)


def set_rate(optimizer: torch.optim.Optimizer, factor: float, step: int) -> None:
    """Ready `optimizer` for the update after `step` done ones: each rate is `factor` of its peak.

    Muon's momentum rises with `step` here, not in the optimizer, so that a resumed run needs no memory of it.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
        if "update" in group:
            group["update"] = step
        if "momentum_peak" in group:
            done = min(1.0, step / group["momentum_steps"]) if group["momentum_steps"] else 1.0
            group["momentum"] = (1 - done) * group["momentum_start"] + done * group["momentum_peak"]


def has_fused_kernel(groups: Groups) -> bool:
    """Whether torch's fused AdamW takes all of these parameters."""
    parameters = [parameter for named in groups.values() for _, parameter in named]
    return all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)


def _present(groups: Groups) -> list[str]:
    """The roles that have parameters, in the order of an optimizer's groups."""
    if unknown := set(groups) - set(ROLES):
        raise ValueError(f"parameters have the roles {', '.join(ROLES)}, not {', '.join(sorted(unknown))}")
    return [role for role in ROLES if groups.get(role)]
