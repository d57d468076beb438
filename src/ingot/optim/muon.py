"""Muon and AdamW as one torch optimizer, and the Newton-Schulz iteration under it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from ingot.distributed import World
from ingot.optim.exchange import replicated, sharded
from ingot.optim.optimizer import STACK_NUMBERS

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x³ and x⁵: Jordan's, steep at 0 and level about 1


class MuonAdamW(torch.optim.Optimizer):
    """An optimizer whose groups with a `momentum` take Muon's updates, and whose other groups take AdamW's.

    AdamW groups hold lr, betas, eps, weight_decay, fused; Muon groups lr, momentum, nesterov, rounds, precision,
    weight_decay, and matrices alone. Both decays are decoupled from the gradient and scale with lr.

    Where parameters are sharded (DTensors), so is the state. In a `world` of several each rank orthogonalises its share
    of the matrices, whole, whether they are sharded or replicated.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], world: World | None = None):
        super().__init__(groups, defaults={})
        self._world = world
        for group in self.param_groups:
            for parameter in group["params"]:
                if "momentum" in group and parameter.ndim != 2:
                    raise ValueError(f"Muon updates matrices, not parameters of shape {tuple(parameter.shape)}")

    # Torch's own, without its decorator, which loads the compiler at the first call: 2 s, also where nothing compiles.

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters."""
        inspect.unwrap(super().add_param_group)(self, param_group)

    def state_dict(self) -> dict[str, Any]:
        """The state and the groups, parameters by their number."""
        return inspect.unwrap(super().state_dict)(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        inspect.unwrap(super().load_state_dict)(self, state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; the closure's loss where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            pairs = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
            if pairs:
                update = self._muon if "momentum" in group else self._adamw
                update(group, [parameter for parameter, _ in pairs], [gradient for _, gradient in pairs])
        return loss

    def _muon(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for indices in self._stacks(parameters):
            shape = parameters[indices[0]].shape
            chosen = [parameters[index] for index in indices]
            weights, slopes = local(chosen), local(gradients[index] for index in indices)
            buffers = local(self._state(weight, "momentum_buffer") for weight in chosen)
            torch._foreach_lerp_(buffers, slopes, 1 - group["momentum"])
            ahead = torch._foreach_lerp(slopes, buffers, group["momentum"]) if group["nesterov"] else buffers
            updates = self._orthogonalized(torch.stack(list(ahead)), shape, group)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            scale = math.sqrt(max(1.0, shape[0] / shape[1]))
            torch._foreach_add_(weights, list(updates.unbind()), alpha=-group["lr"] * scale)

    def _orthogonalized(self, stack: Tensor, shape: torch.Size, group: dict[str, Any]) -> Tensor:
        """`stack`: what this rank holds of matrices of `shape`; the same of what Newton-Schulz makes of them."""
        work = partial(orthogonalize, rounds=group["rounds"], dtype=_precision(group["precision"], stack))
        if self._world is None or self._world.size == 1:
            return work(stack)
        if _is_sharded(group["params"][0]):
            return sharded(stack, shape[0], self._world, work)
        return replicated(stack, self._world, work)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for parameter in parameters:
            if "step" not in self.state[parameter]:
                place = parameter.device if group["fused"] else "cpu"  # the fused kernel counts beside the weights
                self.state[parameter]["step"] = torch.zeros((), dtype=torch.float32, device=place)
        adamw_step(
            group,
            local(parameters),
            local(gradients),
            local(self._state(parameter, "exp_avg") for parameter in parameters),
            local(self._state(parameter, "exp_avg_sq") for parameter in parameters),
            [self.state[parameter]["step"] for parameter in parameters],
        )

    def _stacks(self, parameters: list[Tensor]) -> Iterator[list[int]]:
        """Indices of `parameters` that are made orthogonal together: what each rank gets of them is of one size."""
        return same_shape(parameters, STACK_NUMBERS * (self._world.size if self._world else 1))

    def _state(self, parameter: Tensor, name: str) -> Tensor:
        """A running mean of `parameter`, which begins at zero."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state[name]


def adamw_step(
    group: dict[str, Any],
    weights: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
) -> None:
    """One step of AdamW in place, by the settings of `group`; `steps`, those done of each weight, are counted up."""
    adamw(
        weights,
        gradients,
        means,
        squares,
        [],
        steps,
        fused=group["fused"],
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def orthogonalize(matrix: Tensor, rounds: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Keep the directions of `matrix`, level their strengths: (..., rows, columns) -> same shape and dtype.

    Quintic Newton-Schulz in `dtype` (the matrix's own by default), coefficients of Jordan et al. (2024),
    kellerjordan.github.io/posts/muon. After 5 rounds every singular value that was above 0.2% of the Frobenius
    norm lies between 0.68 and 1.21. A matrix of zeros stays one.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.size(-2) > matrix.size(-1)  # the products are square in the shorter side
    wide = matrix.mT if tall else matrix
    x = (wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)).to(dtype or matrix.dtype)
    x = x.reshape(-1, *wide.shape[-2:])
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.reshape(wide.shape).to(matrix.dtype)
    return x.mT if tall else x


def same_shape(matrices: Iterable[Tensor], most: int = STACK_NUMBERS) -> Iterator[list[int]]:
    """Indices of `matrices` that stack: equal in shape, dtype and device, at most `most` numbers together."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for index, matrix in enumerate(matrices):
        alike.setdefault((matrix.shape, matrix.dtype, matrix.device), []).append(index)
    for (shape, *_), indices in alike.items():
        rest = iter(indices)
        while chunk := list(islice(rest, max(1, most // max(1, shape.numel())))):
            yield chunk


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this rank holds of each of `tensors`, in the same memory: of a sharded one (DTensor) its rows."""
    return [tensor.to_local() if _is_sharded(tensor) else tensor for tensor in tensors]  # type: ignore[attr-defined]


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "to_local")  # DTensor's own import takes long, and most processes never see one


def _precision(name: str, like: Tensor) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if like.is_cuda else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32
