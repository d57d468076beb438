"""The weights before the first step: a standard deviation for each, chosen by name. No PyTorch here.

Every weight is drawn from a normal distribution; gains start at one and biases at zero whatever the choice.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from pydantic import Field

from ingot.config.config import Choice
from ingot.model.architecture import Architecture

Role = Literal["embedding", "head", "matrix", "vector"]


class Initialization(Choice):
    """How the weights are drawn. One class statement adds another."""

    @abstractmethod
    def std(self, role: Role, fan_in: int, into_stream: bool, arch: Architecture) -> float:
        """The standard deviation of a weight that reads `fan_in` values.

        `into_stream`: it is the last of a block's attention or MLP, whose output is added to the residual stream.
        """


class Scaled(Initialization, name="scaled"):
    """One width for all; what writes into the residual stream is scaled down by depth (GPT-2, Radford et al., 2019)."""

    width: float = Field(default=0.02, gt=0)
    """standard deviation of a weight; 1 / sqrt(2 x layers) of it for what writes into the residual stream"""

    def std(self, role: Role, fan_in: int, into_stream: bool, arch: Architecture) -> float:
        return self.width / (2 * arch.layers) ** 0.5 if into_stream else self.width


class Zero(Initialization, name="zero"):
    """Every block starts as the identity and the head near silence; goes with Muon (as in modded-nanogpt, nanochat)."""

    embedding: float = Field(default=1.0, gt=0)
    """standard deviation of an embedding of its own"""
    tied_embedding: float = Field(default=0.02, gt=0)
    """standard deviation of an embedding that is the head too, whose logits must start small"""
    head: float = Field(default=0.001, ge=0)
    """standard deviation of the head"""

    def std(self, role: Role, fan_in: int, into_stream: bool, arch: Architecture) -> float:
        if into_stream:
            return 0.0
        if role == "embedding":
            return self.tied_embedding if arch.tied else self.embedding
        return self.head if role == "head" else fan_in**-0.5
