"""An optimizer's state as each rank holds it: into a checkpoint by rows, and from there onto any number of ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ingot.checkpoint.state import Rows
from ingot.distributed import World
from ingot.engine.strategy import own_rows


def shared_out(optimizer: torch.optim.Optimizer, world: World) -> dict[str, Any]:
    """The `state_dict` of `optimizer` in which every tensor is this rank's rows: those it holds, or its share of them.

    Put together it is the same for any number of ranks.
    """
    whole = optimizer.state_dict()
    if world.size == 1:
        return whole
    states = {
        index: {name: _own(value, world) for name, value in state.items()} for index, state in whole["state"].items()
    }
    return {**whole, "state": states}


def scattered(whole: dict[str, Any], optimizer: torch.optim.Optimizer, world: World) -> dict[str, Any]:
    """What `optimizer` takes from the `whole` state, in tensors or `Rows`: of sharded parameters this rank's rows."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {
        index: {name: _part(value, parameters[index], world) for name, value in state.items()}
        for index, state in whole["state"].items()
    }
    return {**whole, "state": states}


def _own(value: Any, world: World) -> Any:
    if not isinstance(value, Tensor) or not value.ndim:
        return value
    return Rows((value.to_local() if hasattr(value, "to_local") else own_rows(value, world),))


def _part(value: Any, parameter: Tensor, world: World) -> Any:
    if isinstance(value, Tensor) and value.ndim:
        value = Rows((value,))
    if not isinstance(value, Rows):
        return value
    if not hasattr(parameter, "to_local") or value.shape[:1] != parameter.shape[:1]:
        return value.read()
    from torch.distributed.tensor import DTensor

    counts, like = world.rows(value.shape[0]), value.pieces[0].new_empty(value.shape, device="meta")
    first = sum(counts[: world.rank])
    return DTensor.from_local(
        value.read(first, first + counts[world.rank]).to(parameter.device),
        parameter.device_mesh,  # type: ignore[attr-defined]
        parameter.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
