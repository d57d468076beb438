"""The optimizer family: configurations that build a torch optimizer over the roles of a model's parameters.

A role is what a parameter does in the network: "embedding", "head", "matrix" (any other matrix) or "vector" (norms and
biases). This file loads no PyTorch until an optimizer is built.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from ingot.config import Choice

if TYPE_CHECKING:
    import torch
    from torch import nn

Groups = Mapping[str, Sequence[tuple[str, "nn.Parameter"]]]  # role -> its named parameters

ROLES = ("matrix", "embedding", "head", "vector")  # the order of an optimizer's groups
FUSED_DEVICES = {"cpu", "cuda", "mps", "xpu"}  # where torch's AdamW has a fused kernel


def _below_one(betas: tuple[float, float]) -> tuple[float, float]:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"each of the betas lies in [0, 1), unlike {betas}; common are [0.9, 0.95]")
    return betas


class Optimizer(Choice):
    """How a gradient becomes an update."""

    @abstractmethod
    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The torch optimizer of `groups`; each of its param groups is one role and carries its `peak_lr`."""


class AdamW(Optimizer, name="adamw"):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""

    lr: float = Field(default=1e-3, ge=0)
    """peak learning rate"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay of the running means of the gradient and of its square, per step"""
    eps: float = Field(default=1e-8, gt=0)
    """added to the root of the mean square"""
    weight_decay: float = Field(default=0.1, ge=0)
    """share of a weight taken away per step and unit of learning rate; matrices, embeddings and head, not vectors"""

    _decays = field_validator("betas")(_below_one)

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """AdamW for every role, fused where the device has that kernel; vectors do not decay."""
        from ingot.optim.muon import MuonAdamW

        common = {"lr": self.lr, "peak_lr": self.lr, "betas": self.betas, "eps": self.eps}
        return MuonAdamW(
            {
                "params": list(groups[role]),
                "role": role,
                "weight_decay": 0.0 if role == "vector" else self.weight_decay,
                "fused": has_fused_kernel(groups),
                **common,
            }
            for role in _present(groups)
        )


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

    _decays = field_validator("betas")(_below_one)

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """One optimizer whose "matrix" group takes Muon's updates and whose other groups take AdamW's."""
        from ingot.optim.muon import MuonAdamW

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
        return MuonAdamW(
            {"params": list(groups[role]), "role": role, "lr": rules[role]["peak_lr"], **rules[role]}
            for role in _present(groups)
        )


def set_rate(optimizer: torch.optim.Optimizer, factor: float, step: int) -> None:
    """Ready `optimizer` for the update after `step` done ones: each rate is `factor` of its peak.

    Muon's momentum rises with `step` here, not in the optimizer, so that a resumed run needs no memory of it.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
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
