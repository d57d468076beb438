"""Training state on disk: what comes back is what went in, to the last bit."""

from __future__ import annotations

import math
import random
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingot.checkpoint.manifest import CheckpointDamaged
from ingot.checkpoint.state import TENSORS, VALUES, load_state, save_state
from ingot.optim.optimizer import AdamW, Muon, Optimizer

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn),
]


def same(one: Any, other: Any) -> bool:
    """Equal in type and value, floats and tensors by their bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def tensor(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Random bits of any dtype, NaNs and all."""
    size = math.prod(shape) * dtype.itemsize
    top = 2 if dtype == torch.bool else 256
    bits = torch.randint(0, top, (size,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return bits.view(dtype).reshape(shape)


scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.integers(-(10**40), 10**40), st.floats(), st.text()),
    st.text(st.characters(categories=["Cs", "L"]), max_size=3),
)
tensors = st.builds(
    tensor, st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3).map(tuple), st.integers(0, 2**31)
)
keys = st.one_of(st.text(max_size=3), st.integers(), st.just("$tensor"), st.tuples(st.integers(), st.text(max_size=2)))
states = st.recursive(
    scalars | tensors,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keys, states, max_size=4))
def test_any_state_comes_back_to_the_last_bit(tmp_path_factory, state: dict[Any, Any]):
    folder = tmp_path_factory.mktemp("state") / "train"
    save_state(folder, state)
    assert same(load_state(folder), state)


def test_random_states_continue_the_same_stream(tmp_path: Path):
    generator = np.random.default_rng(3)
    state = {"python": random.getstate(), "torch": torch.get_rng_state(), "numpy": generator.bit_generator.state}
    expected = random.random(), torch.rand(3), generator.random()
    save_state(tmp_path / "train", state)
    back = load_state(tmp_path / "train")
    random.setstate(back["python"])
    torch.set_rng_state(back["torch"])
    generator.bit_generator.state = back["numpy"]
    assert same((random.random(), torch.rand(3), generator.random()), expected)


@pytest.mark.parametrize("config", [AdamW(), Muon()], ids=lambda config: config.kind)
def test_the_state_of_an_optimizer_comes_back(config: Optimizer, tmp_path: Path):
    weights = {"matrix": torch.nn.Linear(3, 4, bias=False), "vector": torch.nn.LayerNorm(3)}
    optimizer = config.build({role: list(module.named_parameters()) for role, module in weights.items()})
    for module in weights.values():
        module(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    save_state(tmp_path / "train", optimizer.state_dict())
    assert same(load_state(tmp_path / "train"), optimizer.state_dict())


def test_numbers_beyond_what_python_reads_in_decimal_come_back(tmp_path: Path):
    state = {"huge": 7**9000, "least": -(2**63), "most": 2**63}
    save_state(tmp_path / "train", state)
    assert same(load_state(tmp_path / "train"), state)


def test_views_slices_and_shared_memory_are_saved_by_value(tmp_path: Path):
    base = torch.arange(12.0).reshape(3, 4)
    shared = {"all": base, "again": base, "part": base[1:, ::2], "turned": base.T, "grown": base[:1].expand(5, 4)}
    save_state(tmp_path / "train", shared)
    assert same(load_state(tmp_path / "train"), shared)
    assert same(load_state(tmp_path / "train")["part"], torch.tensor([[4.0, 6.0], [8.0, 10.0]]))


def test_parameters_and_ordered_mappings_become_plain(tmp_path: Path):
    save_state(tmp_path / "train", {"state": OrderedDict(weight=torch.nn.Parameter(torch.ones(2)))})
    assert same(load_state(tmp_path / "train"), {"state": {"weight": torch.ones(2)}})


def test_what_can_not_be_held_is_named(tmp_path: Path):
    with pytest.raises(TypeError, match=r"state\.a\[1\]\[2\] is a set"):
        save_state(tmp_path / "train", {"a": [0, {2: {1}}]})


@pytest.mark.parametrize("name", [VALUES, TENSORS])
@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": {"$tensor": "none"}}', b'{"a": {"$int": 3}}', b'{"a": {"$dict": 1}}', b"[" * 10**5]
)
def test_a_state_that_can_not_be_read_is_one_line(tmp_path: Path, name: str, content: bytes):
    save_state(tmp_path / "train", {"a": torch.ones(3)})
    (tmp_path / "train" / name).write_bytes(content)
    with pytest.raises(CheckpointDamaged, match="the training state can't be read"):
        load_state(tmp_path / "train")
