"""The native engine: forward, backward and update in PyTorch; a strategy says what each process holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ingot.data.loader import TokenBatch
from ingot.engine.compiled import reason
from ingot.engine.device import silence_missing_cuda
from ingot.engine.engine import StepResult
from ingot.engine.loss_model import LossModel
from ingot.engine.memory import is_out_of_memory
from ingot.engine.precision import Scaler, to_fp8
from ingot.engine.states import scattered, shared_out
from ingot.engine.strategy import Strategy
from ingot.model.decoder import Decoder
from ingot.model.objective import Full, Objective
from ingot.optim.muon import local
from ingot.optim.optimizer import Optimizer, set_rate


class NativeEngine:
    """A model with its optimizer, and the one way to advance them."""

    def __init__(
        self,
        model: Decoder,
        optimizer: Optimizer,
        strategy: Strategy,
        *,
        clip: float,
        precision: str,
        objective: Objective | None = None,
    ):
        if precision == "fp8":
            to_fp8(model)
        strategy.place(model, precision)
        self.model = model
        self.world = strategy.world
        self.clip = clip
        self._strategy = strategy
        self._optimizer_config = optimizer
        self._scaler = Scaler(precision)
        self._compiled = False
        self._loss_model = LossModel(model, objective or Full(), self.world.device, precision)
        self._forward = strategy.wrap(self._loss_model)
        self.renew_optimizer()

    def renew_optimizer(self) -> None:
        """Forget all optimizer state."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
        roles = self.model.roles()
        for name, parameter in self.model.named_parameters():
            groups.setdefault(roles[name], []).append((name, parameter))
        self.optimizer = self._optimizer_config.build(groups, self.world)

    def compile(self, batches: Sequence[TokenBatch], done: Callable[[int], None] = lambda count: None) -> None:
        """Compile the model for the shapes of `batches`; `done` hears after each how many are.

        Raises whatever the compiler raises; the model is then as it was, and not compiled.
        """
        silence_missing_cuda()
        trial = self._strategy.compile(self._loss_model)
        self._compiled = True
        try:
            for count, batch in enumerate(batches, 1):
                trial(batch)[0].backward()
                done(count)
        except BaseException:
            self.uncompile()
            raise
        finally:
            self.model.zero_grad(set_to_none=True)

    def uncompile(self) -> None:
        """Go on with the model as it was before `compile`."""
        self._compiled = False
        self._strategy.uncompile(self._loss_model)

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

        Where the compiled model fails, alone, the step is made without it, and so are all that follow.
        """
        make = partial(self._step, batches, factor, step, seed, candidates, limit)
        try:
            return make()
        except Exception as error:  # whatever a compiled model fails with
            if not self._compiled or self.world.size > 1 or is_out_of_memory(error):
                raise
            self.uncompile()
            self.model.zero_grad(set_to_none=True)
            return replace(make(), uncompiled=reason(error))

    def _step(
        self, batches: Sequence[TokenBatch], factor: float, step: int, seed: int, candidates: int, limit: float
    ) -> StepResult:
        torch.manual_seed((seed * 1_000_003 + step * 1_009 + self.world.rank) % 2**63)
        targets = int(self.world.sum(torch.tensor(sum(batch.target_count for batch in batches))))
        loss = torch.zeros((), device=self.world.device)
        for place, batch in enumerate(batches, 1):
            with self._strategy.accumulating(last=place == len(batches)):
                total, head_rows = self._forward(batch, candidates)
                share = total / max(targets, 1)
                self._backward(share)
            loss += share.detach()
        self.world.sum(loss)
        set_rate(self.optimizer, factor, step)
        nothing = -math.inf  # where no target is, momentum and decay would move weights all the same
        norm, applied = self._update(loss, limit if targets else nothing)
        overflow = self._scaler.overflowed(loss.item(), norm.item())
        return StepResult(loss, norm, targets, head_rows, applied, overflow)

    def _backward(self, share: Tensor) -> None:
        """The gradient of this rank's `share` of the loss, times the loss scale."""
        (share * self._scaler.scale).backward()

    def _update(self, loss: Tensor, limit: float) -> tuple[Tensor, bool]:
        """Update the weights unless `loss` or the gradient forbids it: the gradient's norm, and whether it was done."""
        norm = self._clip()
        applied = may_apply(loss, norm, limit)
        if applied:
            self.optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return norm, applied

    def _clip(self) -> Tensor:
        """Scale the gradients down to the largest norm allowed; the norm that they had."""
        gradients = local(one.grad for one in self.model.parameters() if one.grad is not None)
        norm = self._strategy.gradient_norm(gradients) / self._scaler.scale
        torch._foreach_mul_(gradients, (self.clip / (norm + 1e-6)).clamp(max=1.0) / self._scaler.scale)
        return norm

    def whole(self, device: torch.device | None = None) -> Decoder | None:
        """The model with all its weights, on the main rank."""
        return self._strategy.whole(self.model, device)

    def parameter(self, name: str) -> Tensor:
        """One parameter, whole, on every rank."""
        return self._strategy.parameter(self.model, name)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the main rank's `weights`."""
        self._strategy.load(self.model, weights)

    def state(self) -> dict[str, Any]:
        """The optimizer's state as it is, this rank's rows of it."""
        return {"optimizer": shared_out(self.optimizer, self.world), "scaler": self._scaler.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`; each rank keeps its part."""
        self.optimizer.load_state_dict(scattered(state["optimizer"], self.optimizer, self.world))
        self._scaler.load_state(state["scaler"])


def may_apply(loss: Tensor, norm: Tensor, limit: float) -> bool:
    """Whether both are numbers, and the loss not above `limit`; both are summed up, so the same on every rank."""
    return bool(torch.isfinite(loss + norm)) and loss.item() <= limit
