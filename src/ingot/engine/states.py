"""An optimizer's state, whole and the same for any number of ranks, from and into the parts that each rank holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ingot.distributed import World
from ingot.engine.strategy import own_rows


def gathered(optimizer: torch.optim.Optimizer, world: World) -> dict[str, Any]:
    """The `state_dict` of `optimizer` with every tensor whole and on the CPU, on the main rank; elsewhere empty."""
    whole = optimizer.state_dict()
    if world.size == 1:
        return whole
    states: dict[int, dict[str, Any]] = {}
    for index, state in whole["state"].items():
        values = {name: _whole(value) for name, value in state.items()}
        if world.main:
            states[index] = {name: _on_cpu(value) for name, value in values.items()}
    return {**whole, "state": states} if world.main else {}


def scattered(whole: dict[str, Any], optimizer: torch.optim.Optimizer, world: World) -> dict[str, Any]:
    """What `optimizer` takes from the `whole` state: of sharded parameters this rank's rows."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {
        index: {name: _part(value, parameters[index], world) for name, value in state.items()}
        for index, state in whole["state"].items()
    }
    return {**whole, "state": states}


def _whole(value: Any) -> Any:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def _part(value: Any, parameter: Tensor, world: World) -> Any:
    if not hasattr(parameter, "to_local") or not isinstance(value, Tensor) or value.shape[:1] != parameter.shape[:1]:
        return value
    from torch.distributed.tensor import DTensor

    rows = own_rows(value, world).to(parameter.device)
    return DTensor.from_local(
        rows,
        parameter.device_mesh,  # type: ignore[attr-defined]
        parameter.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=value.shape,
        stride=value.stride(),
    )
