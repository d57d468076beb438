"""Nested state on disk without pickle: tensors in safetensors, the rest in JSON, the round trip exact.

JSON has no tuples, no keys but strings and no NaN. What it lacks is an object with one key that begins with "$".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ingot.checkpoint.manifest import CheckpointDamaged

VALUES = "state.json"
TENSORS = "tensors.safetensors"
JSON_INTEGERS = 2**63  # larger ones are written in hexadecimal, which Python reads at any length


def save_state(folder: Path, state: Mapping[Any, Any]) -> None:
    """Write `state` into `folder`: mappings, lists, tuples, tensors, numbers, strings, booleans and None, nested.

    Raises TypeError that names the place of anything else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    values = _encode(state, "state", tensors)
    save_file(tensors, folder / TENSORS)
    (folder / VALUES).write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load_state(folder: Path) -> dict[Any, Any]:
    """What `save_state` wrote, equal to the last bit; tensors on the CPU. Raises CheckpointDamaged."""
    try:
        tensors = load_file(folder / TENSORS)
        return _decode(json.loads((folder / VALUES).read_text(encoding="utf-8")), tensors)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, struct.error, SafetensorError) as error:
        raise CheckpointDamaged(folder, f"the training state can't be read ({error})") from error


def _encode(value: Any, at: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as what JSON can hold; its tensors go into `tensors`. `at` is its place, for errors."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) < JSON_INTEGERS else {"$int": hex(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{at}[{index}]", tensors) for index, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _encode(item, f"{at}.{key}", tensors) for key, item in value.items()}
        pairs = [[_encode(key, at, tensors), _encode(item, f"{at}[{key!r}]", tensors)] for key, item in value.items()]
        return {"$dict": pairs}
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors):06d} {at}"
        # A copy where two tensors may share memory or lie scattered in it: safetensors stores each one whole.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"$tensor": name}
    raise TypeError(f"{at} is a {type(value).__name__}, which a checkpoint can't hold exactly")


def _decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    inside: Any = value.get(tag)
    match tag:
        case "$int":
            return int(inside, 16)
        case "$float":
            return struct.unpack(">d", bytes.fromhex(inside))[0]
        case "$tuple":
            return tuple(_decode(item, tensors) for item in inside)
        case "$dict":
            return {_decode(key, tensors): _decode(item, tensors) for key, item in inside}
        case "$tensor":
            return tensors[inside]
    return {key: _decode(item, tensors) for key, item in value.items()}
