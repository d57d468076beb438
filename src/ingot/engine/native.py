"""The native engine: forward, backward and update on this process's device, gradients summed over its peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ingot.data.loader import TokenBatch
from ingot.distributed import World
from ingot.model.decoder import Decoder
from ingot.model.loss import sampled_loss, token_loss
from ingot.optim.optimizer import Optimizer, set_rate


@dataclass(frozen=True)
class StepResult:
    """What one update was: the mean loss over its `targets` tokens and the gradient's norm before clipping."""

    loss: Tensor
    gradient_norm: Tensor
    targets: int
    head_rows: int
    """tokens of the vocabulary that a target was compared with"""


class Engine:
    """A model with its optimizer, and the one way to advance them."""

    def __init__(self, model: Decoder, optimizer: Optimizer, world: World, *, clip: float, precision: str):
        self.model = model.to(world.device)
        self.world = world
        self.clip = clip
        self.autocast = precision == "bf16"
        self._optimizer_config = optimizer
        self._hidden: Callable[..., Tensor] = model.hidden
        self.renew_optimizer()

    def renew_optimizer(self) -> None:
        """Forget all optimizer state."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
        roles = self.model.roles()
        for name, parameter in self.model.named_parameters():
            groups.setdefault(roles[name], []).append((name, parameter))
        self.optimizer = self._optimizer_config.build(groups)

    def compile(self, batches: Sequence[TokenBatch]) -> str:
        """Compile the model for the shapes of `batches`; empty, or the reason why it stays as it was."""
        self._hidden = torch.compile(self.model.hidden, dynamic=False)
        try:
            for batch in batches:
                self._loss(batch)[0].backward()
        except Exception as error:  # whatever a compiler chokes on, the uncompiled model still trains
            self._hidden = self.model.hidden
            return (str(error).strip().splitlines() or [type(error).__name__])[0]
        finally:
            self.model.zero_grad(set_to_none=True)
        return ""

    def step(
        self, batches: Sequence[TokenBatch], *, factor: float, step: int, seed: int, candidates: int = 0
    ) -> StepResult:
        """One update from this rank's `batches`, at `factor` of the peak rate.

        The loss is the mean over the target tokens of all batches of all ranks; with `candidates` the vocabulary is
        sampled. All that is random is a function of (seed, step, rank), so no random state needs keeping.
        """
        torch.manual_seed((seed * 1_000_003 + step * 1_009 + self.world.rank) % 2**63)
        targets = int(
            self.world.sum(torch.tensor(sum(batch.target_count for batch in batches), device=self.world.device))
        )
        loss = torch.zeros((), device=self.world.device)
        for batch in batches:
            total, head_rows = self._loss(batch, candidates)
            share = total / max(targets, 1)
            share.backward()
            loss += share.detach()
        self._sum_gradients()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip, foreach=True)
        set_rate(self.optimizer, factor, step)
        self.optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return StepResult(self.world.sum(loss), norm, targets, head_rows)

    def _loss(self, batch: TokenBatch, candidates: int = 0) -> tuple[Tensor, int]:
        """The summed loss of one batch, and how many tokens of the vocabulary it was taken over."""
        batch = batch.to(self.world.device)
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.autocast):
            hidden = self._hidden(batch.inputs, batch.positions, packed=batch.packed)
            hidden, targets, weight = hidden.flatten(0, 1), batch.targets.flatten(), self.model.head_weight
            if candidates:
                return sampled_loss(hidden, weight, targets, candidates)
            return token_loss(hidden, weight, targets), len(weight)

    def _sum_gradients(self) -> None:
        if self.world.size == 1:
            return
        for parameter in self.model.parameters():
            if parameter.grad is None:  # a rank whose rows held no targets still takes part in every sum
                parameter.grad = torch.zeros_like(parameter)
            self.world.sum(parameter.grad)

    def state(self) -> dict[str, Any]:
        """What `load_state` needs beside the weights."""
        return {"optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`, of a model of the same shape."""
        self.optimizer.load_state_dict(state["optimizer"])
