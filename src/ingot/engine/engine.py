"""What the loop asks of an engine, whichever it is: one update at a time, the whole weights, and a state to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ingot.data.loader import TokenBatch
from ingot.distributed import World
from ingot.model.decoder import Decoder


@dataclass(frozen=True)
class StepResult:
    """What one update was: the mean loss over its `targets` tokens and the gradient's norm before clipping.

    The same on every rank.
    """

    loss: Tensor
    gradient_norm: Tensor
    targets: int
    head_rows: int
    """tokens of the vocabulary that a target was compared with"""
    applied: bool
    """False: the loss or the gradient was no number, or the loss above the limit; neither weights nor optimizer have
    changed"""
    overflow: bool = False
    """not applied only because fp16's loss scale was too large, which it is no longer: no fault of the data"""
    uncompiled: str = ""
    """why the engine has gone on without compilation, in the step in which it has"""


class Engine(Protocol):
    """A model with its optimizer, and the one way to advance them. Every rank calls each method, or none does."""

    model: Decoder
    """this rank's part of it; `hidden` and then `head_weight` work on every engine, without gradients"""
    world: World

    def compile(self, batches: Sequence[TokenBatch], done: Callable[[int], None] = ...) -> None:
        """Compile the model for the shapes of `batches`, this rank by itself; `done` hears after each how many are.

        Raises whatever the compiler raises; the model is then as it was, and not compiled.
        """

    def uncompile(self) -> None:
        """Go on with the model as it was before `compile`."""

    def step(
        self,
        batches: Sequence[TokenBatch],
        *,
        factor: float,
        step: int,
        seed: int,
        candidates: int = 0,
        limit: float = math.inf,
    ) -> StepResult:
        """One update from this rank's `batches`, at `factor` of the peak rate; none where the loss is above `limit`.

        The loss is the mean over the target tokens of all batches of all ranks; with `candidates` the vocabulary is
        sampled. All that is random is a function of (seed, step, rank), so no random state needs keeping.
        """

    def renew_optimizer(self) -> None:
        """Forget all optimizer state."""

    def whole(self, device: torch.device | None = None) -> Decoder | None:
        """The model with all its weights on `device` (none: where they are), on the main rank; elsewhere None.

        It may be the trained model itself: look, do not change.
        """

    def parameter(self, name: str) -> Tensor:
        """The parameter of that name, whole, on every rank's device; it may be the trained one itself."""

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over `weights`, by the model's own names; those of the main rank count."""

    def state(self) -> dict[str, Any]:
        """What `load_state` needs beside the weights: what this rank holds itself, live, and nothing is gathered.

        The main rank's values and tensors count; of `Rows` every rank gives its own, all nested alike. Put together it
        does not depend on the number of ranks, nor on how the work was shared among them.
        """

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`, of a model of the same shape; every rank is given the whole, in tensors or `Rows`."""
