"""The arithmetic of memory beside what PyTorch keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ingot.model.architecture import Architecture, parameter_counts
from ingot.model.attention import Context
from ingot.model.decoder import Decoder, _mask
from ingot.model.memory import Work, footprint, kept_by_block, matrices, role_counts

SHAPES = {
    "llama": {"family": "llama", "kv_heads": 2},
    "geglu": {"family": "llama", "mlp": "geglu"},
    "qwen3": {"family": "qwen3", "kv_heads": 2},
    "gpt2": {"family": "gpt2"},
    "dropout": {"family": "gpt2", "dropout": 0.1},
}
WIDTHS = {"fp32": 4, "bf16": 2}


def shape(name: str, **changes: Any) -> Architecture:
    sizes = {"vocabulary": 97, "context": 64, "layers": 2, "hidden_size": 96, "heads": 6, "mlp_size": 200}
    return Architecture(**{**sizes, **SHAPES[name], **changes})


def kept_by_pytorch(arch: Architecture, work: Work) -> float:
    """Bytes of a token that the second block's operations save: each storage once, without weights and their copies."""
    model = Decoder(arch).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = {tuple(sorted(parameter.shape)) for parameter in model.parameters()}
    saved: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tuple(sorted(tensor.shape)) not in sizes:
            saved[storage.data_ptr()] = storage
        return tensor

    tokens = torch.randint(arch.vocabulary, (work.rows, work.length))
    positions = torch.arange(work.length).expand(work.rows, -1).contiguous()
    with torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bf16"):
        x, rotation = model.positions(model.embedding(tokens), positions)
        context = Context(positions, rotation, _mask(positions, work.packed, None), None)
        x = model.blocks[0](x, context)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.blocks[1](x, context)
    angles = {part.untyped_storage().data_ptr() for part in rotation or ()}
    return sum(storage.nbytes() for at, storage in saved.items() if at not in angles) / work.tokens


@pytest.mark.parametrize("packed", [False, True], ids=["whole rows", "packed"])
@pytest.mark.parametrize("precision", WIDTHS)
@pytest.mark.parametrize("name", SHAPES)
def test_a_block_keeps_what_the_arithmetic_says(name: str, precision: Any, packed: bool):
    arch, work = shape(name), Work(rows=3, length=64, precision=precision, packed=packed)
    assert kept_by_block(arch, work) == pytest.approx(kept_by_pytorch(arch, work), rel=0.03)


@pytest.mark.parametrize("name", SHAPES)
def test_roles_and_matrices_are_those_of_the_model(name: str):
    arch = shape(name)
    model, counted = Decoder(arch), dict.fromkeys(("matrix", "embedding", "head", "vector"), 0)
    shapes: dict[tuple[int, ...], int] = {}
    for parameter, role in zip(model.parameters(), model.roles().values(), strict=True):
        counted[role] += parameter.numel()
        if role == "matrix":
            shapes[tuple(parameter.shape)] = shapes.get(tuple(parameter.shape), 0) + 1
    assert role_counts(arch) == counted
    assert {(rows, columns): number for rows, columns, number in matrices(arch)} == shapes


def held(arch: Architecture, work: Work) -> float:
    return footprint(arch, work, state=8.0 * parameter_counts(arch)["total"], update=0.0).total


def test_thrift_is_thrifty():
    arch, work = shape("llama", layers=12), Work(rows=8, length=64, precision="bf16")
    whole = held(arch, work)
    assert held(arch, replace(work, recompute_every=1)) < held(arch, replace(work, recompute_every=2)) < whole
    assert held(arch, replace(work, compiled=True)) < whole
    assert held(arch, replace(work, rows=4, accumulated=True)) < whole
    assert held(arch, replace(work, ranks=4, stage=3)) < held(arch, replace(work, ranks=4, stage=2)) < whole


def test_a_large_vocabulary_never_has_all_of_its_logits():
    arch, work = shape("llama", vocabulary=100_000), Work(rows=64, length=1024)
    every_logit = 4.0 * work.tokens * arch.vocabulary
    assert footprint(arch, work, state=0, update=0).logits < every_logit / 100
