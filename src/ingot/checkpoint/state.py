"""Nested state on disk without pickle: tensors in safetensors, the rest in JSON, the round trip exact.

JSON has no tuples, no keys but strings and no NaN. What it lacks is an object with one key that begins with "$".
Several processes write one state: the main rank all of it but for the rows that the others hold, each in its own file.
"""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ingot.checkpoint.manifest import CheckpointDamaged

VALUES = "state.json"
TENSORS = "tensors.safetensors"  # of the main rank
JSON_INTEGERS = 2**63  # larger ones are written in hexadecimal, which Python reads at any length


@dataclass(frozen=True)
class Rows:
    """A tensor in pieces along its first dimension, one for each rank, in their order.

    To be saved it holds this rank's own piece; loaded it holds all of them.
    """

    pieces: tuple[torch.Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the pieces together."""
        return (sum(len(piece) for piece in self.pieces), *self.pieces[0].shape[1:])

    def read(self, first: int = 0, end: int | None = None) -> torch.Tensor:
        """The rows [first, end) of the pieces together; only what is asked for is read from the disk."""
        end, begin, found = self.shape[0] if end is None else end, 0, []
        for piece in self.pieces:
            part = piece[max(0, first - begin) : max(0, end - begin)]
            begin += len(piece)
            if len(part):
                found.append(part)
        if not found:
            return self.pieces[0][:0]
        return found[0] if len(found) == 1 else torch.cat(found)


def tensors_file(rank: int) -> str:
    """The name of the file with the tensors that a rank writes."""
    return f"tensors-{rank:05d}.safetensors" if rank else TENSORS


def save_state(folder: Path, state: Mapping[Any, Any], *, size: int = 1) -> None:
    """Write `state` into `folder`: mappings, lists, tuples, tensors, numbers, strings, booleans and None, nested.

    Of its `Rows` the main rank's own; `size` ranks each call this or `save_rows`. Raises TypeError that names the
    place of anything else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = _Found(size)
    values = _encode(state, "state", found)
    save_file(found.plain | found.rows, folder / TENSORS)
    (folder / VALUES).write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def save_rows(path: Path, state: Mapping[Any, Any]) -> None:
    """Write the `Rows` of `state` alone, into the file that `tensors_file` names: the part of a rank that is not main.

    Raises TypeError as `save_state` does.
    """
    found = _Found()
    _encode(state, "state", found)
    save_file(found.rows, path)


def load_state(folder: Path) -> dict[Any, Any]:
    """What `save_state` wrote, equal to the last bit; tensors on the CPU. Raises CheckpointDamaged.

    Their memory is mapped, so that nothing is read from the disk before it is used.
    """
    file_of = functools.cache(lambda rank: load_file(folder / tensors_file(rank)))
    try:
        file_of(0)
        return _decode(json.loads((folder / VALUES).read_text(encoding="utf-8")), file_of)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, struct.error, SafetensorError) as error:
        raise CheckpointDamaged(folder, f"the training state can't be read ({error})") from error


def copied(state: Any, *, main: bool = True) -> Any:
    """`state` with nothing in it that changes when training goes on: tensors copied into host memory.

    On ranks that are not `main`, tensors that only the main one writes become None.
    """
    if isinstance(state, torch.Tensor):
        return _own_memory(state) if main else None
    if isinstance(state, Rows):
        return Rows(tuple(_own_memory(piece) for piece in state.pieces))
    if isinstance(state, Mapping):
        return {key: copied(value, main=main) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(value, main=main) for value in state)
    return state


def size_of(state: Any) -> int:
    """The bytes of the tensors in `state`."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    if isinstance(state, Rows):
        return size_of(state.pieces)
    if isinstance(state, Mapping):
        return sum(size_of(value) for value in state.values())
    return sum(size_of(value) for value in state) if isinstance(state, list | tuple) else 0


@dataclass
class _Found:
    """The tensors of a state, by the names under which they are stored."""

    size: int = 1  # how many ranks write rows
    plain: dict[str, torch.Tensor] = field(default_factory=dict)
    rows: dict[str, torch.Tensor] = field(default_factory=dict)
    memory: set[int] = field(default_factory=set)  # where those lie that are stored as they are

    def add(self, tensors: dict[str, torch.Tensor], name: str, value: torch.Tensor) -> str:
        """Note `value`; as a copy where it shares memory or lies scattered in it: safetensors stores each one whole."""
        value, name = value.detach().cpu(), f"{len(tensors):06d} {name}"
        memory = value.untyped_storage()
        if not value.is_contiguous() or memory.nbytes() != value.nbytes or memory.data_ptr() in self.memory:
            value = _own_memory(value)
        self.memory.add(value.untyped_storage().data_ptr())
        tensors[name] = value
        return name


def _own_memory(value: torch.Tensor) -> torch.Tensor:
    """A copy in host memory, its numbers one after another."""
    value = value.detach()
    if value.device.type != "cpu":
        return value.cpu().contiguous()
    return value.clone(memory_format=torch.contiguous_format)


def _encode(value: Any, at: str, found: _Found) -> Any:
    """`value` as what JSON can hold; its tensors go to `found`. `at` is its place, for errors."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) < JSON_INTEGERS else {"$int": hex(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{at}[{index}]", found) for index, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _encode(item, f"{at}.{key}", found) for key, item in value.items()}
        pairs = [[_encode(key, at, found), _encode(item, f"{at}[{key!r}]", found)] for key, item in value.items()]
        return {"$dict": pairs}
    if isinstance(value, torch.Tensor):
        return {"$tensor": found.add(found.plain, at, value)}
    if isinstance(value, Rows):  # named by their order among themselves, which is the same on every rank
        return {"$rows": found.add(found.rows, f"rows {at}", value.pieces[0]), "ranks": found.size}
    raise TypeError(f"{at} is a {type(value).__name__}, which a checkpoint can't hold exactly")


def _decode(value: Any, file_of: Callable[[int], Mapping[str, torch.Tensor]]) -> Any:
    if isinstance(value, list):
        return [_decode(item, file_of) for item in value]
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
            return tuple(_decode(item, file_of) for item in inside)
        case "$dict":
            return {_decode(key, file_of): _decode(item, file_of) for key, item in inside}
        case "$tensor":
            return file_of(0)[inside]
        case "$rows":
            return Rows(tuple(file_of(rank)[inside] for rank in range(value["ranks"])))
    return {key: _decode(item, file_of) for key, item in value.items()}
