"""What llama.cpp calls the parts of a model: its architectures, their metadata and their tensors, mapped both ways.

H heads, C head size, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ingot.config.check import validate
from ingot.convert.gguf.container import Container
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.foreign import check_numbers


@dataclass(frozen=True)
class Scheme:
    """One of llama.cpp's architectures, which is named as our family."""

    fields: Mapping[str, str]
    """their metadata key, without the architecture's name before it -> our field, values equal"""
    mlp: str
    """the one MLP that llama.cpp computes for it"""
    qkv: bool = False
    """queries, keys and values are one tensor"""
    paired: bool = False
    """rotary positions turn neighbours, so the rows of queries and keys lie in another order than ours"""
    harmless: frozenset[str] = field(default=frozenset({"vocab_size", "rope.scaling.finetuned"}))
    """keys that say nothing about what the model computes"""


_SIZES = {
    "context_length": "context",
    "embedding_length": "hidden_size",
    "block_count": "layers",
    "feed_forward_length": "mlp_size",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
}
_ROTARY = {
    **_SIZES,
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "attention.key_length": "head_size",
    "attention.value_length": "head_size",
    "rope.dimension_count": "head_size",
    "rope.freq_base": "rope_theta",
}
_LEARNED = {**_SIZES, "attention.layer_norm_epsilon": "norm_eps"}
SCHEMES = {
    "gpt2": Scheme(_LEARNED, mlp="gelu", qkv=True),
    "llama": Scheme(_ROTARY, mlp="swiglu", paired=True),
    "qwen2": Scheme(_ROTARY, mlp="swiglu"),
    "qwen3": Scheme(_ROTARY, mlp="swiglu"),
}

# What llama.cpp takes for a key that is missing; for any other it must be there.
_DEFAULTS: dict[str, Any] = {"kv_heads": None, "head_size": None, "rope_theta": 10_000.0}

_MODULES = {
    "embedding": "token_embd",
    "positions.table": "position_embd",
    "norm": "output_norm",
    "head": "output",
}
_BLOCK_MODULES = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "attention.query_norm": "attn_q_norm",
    "attention.key_norm": "attn_k_norm",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
_PARTS = ("attention.query", "attention.key", "attention.value")


def to_metadata(arch: Architecture) -> dict[str, Any]:
    """The keys that describe `arch`. Raises UserError, by its field, for what llama.cpp would compute otherwise."""
    scheme = SCHEMES[arch.family]
    if arch.mlp != scheme.mlp:
        what = f"llama.cpp computes {scheme.mlp} in a {arch.family}, and this model has mlp={arch.mlp}"
        raise UserError(what, where="export to gguf", mend="export it to huggingface or onnx")
    return {f"{arch.family}.{key}": getattr(arch, ours) for key, ours in scheme.fields.items()}


def from_metadata(file: Container) -> Architecture:
    """The architecture that a file describes. Raises UserError by the first key that does not fit."""
    given, where = file.metadata, str(file.path)
    family = given.get("general.architecture")
    if not isinstance(family, str) or family not in SCHEMES:
        known = " or ".join(SCHEMES)
        what = f"this architecture does not fit: general.architecture is {family!r:.80}"
        raise UserError(what, where=where, mend=f"it must be {known}")
    scheme, prefix = SCHEMES[family], f"{family}."
    _check_keys(given, scheme, prefix, where)
    vocabulary = file.tensors.get(EMBEDDING)
    if vocabulary is None:
        raise UserError(f"the tensor {EMBEDDING} is missing", where=where, mend="the file may be incomplete")
    values: dict[str, Any] = {"family": family, "mlp": scheme.mlp, "vocabulary": vocabulary.shape[0]}
    values["tied"] = HEAD not in file.tensors or _same(file, EMBEDDING, HEAD)
    for key, ours in scheme.fields.items():
        value = given.get(f"{prefix}{key}", values.get(ours, _DEFAULTS.get(ours)))
        if value is None and ours not in _DEFAULTS:
            raise UserError(f"{prefix}{key} is missing", where=where, mend="the file may be incomplete")
        if values.get(ours) is None:
            values[ours] = value
        elif value != values[ours]:
            what = f"this architecture does not fit: {prefix}{key} is {value!r:.80}"
            raise UserError(what, where=where, mend=f"it must be {values[ours]}")
    for ours in ("norm_eps", "rope_theta"):  # kept in float32, where they were written as decimals
        if ours in values:
            values[ours] = _as_written(values[ours])
    check_numbers(values, where)
    return validate(Architecture, values, where=where)


def _check_keys(given: Mapping[str, Any], scheme: Scheme, prefix: str, where: str) -> None:
    """Refuse what says that the model computes something else: unknown keys of its own, and parts of it elsewhere."""
    for key, value in given.items():
        own = key.startswith(prefix)
        rest = key.removeprefix(prefix)
        plain = rest == "rope.scaling.type" and value == "none"
        if (own and rest not in scheme.fields and rest not in scheme.harmless and not plain) or (
            key == "split.count" and value != 1
        ):
            what = f"this architecture does not fit: {key} is {value!r:.80}"
            raise UserError(what, where=where, mend="only models without it can be read")


def tensors(model: Decoder) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of their tensors, in their order, and the parameters of ours that it holds one below the other."""
    scheme = SCHEMES[model.arch.family]
    present = dict(model.named_parameters())
    for name in present:
        *path, part = name.split(".")
        if path[0] != "blocks":
            yield f"{_MODULES['.'.join(path)]}.{part}", (name,)
            continue
        module, layer = ".".join(path[2:]), path[1]
        if scheme.qkv and module in _PARTS:
            if module == _PARTS[0]:
                ours = tuple(f"blocks.{layer}.{one}.{part}" for one in _PARTS)
                yield f"blk.{layer}.attn_qkv.{part}", ours
        else:
            yield f"blk.{layer}.{_BLOCK_MODULES[module]}.{part}", (name,)


def is_paired(name: str, arch: Architecture) -> bool:
    """Whether the rows of one of our parameters lie in another order there."""
    return SCHEMES[arch.family].paired and name.endswith(("attention.query.weight", "attention.key.weight"))


def to_pairs(weight: Tensor, head_size: int) -> Tensor:
    """Rows (H x C, D) of which channels i and i + C/2 are turned together -> rows of which neighbours are."""
    return weight.view(-1, 2, head_size // 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def from_pairs(weight: Tensor, head_size: int) -> Tensor:
    """The inverse of `to_pairs`."""
    return weight.view(-1, head_size // 2, 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def _same(file: Container, first: str, second: str) -> bool:
    """Whether two tensors hold the same bytes: some write a tied head beside the embedding."""
    one, other = file.tensors[first], file.tensors[second]
    return (one.shape, one.kind) == (other.shape, other.kind) and file.raw(first) == file.raw(second)


def _as_written(value: Any) -> Any:
    """The shortest decimal that float32 rounds to `value`: 1e-05, not 9.999999747378752e-06."""
    import numpy as np

    if not isinstance(value, float) or not math.isfinite(value) or float(np.float32(value)) != value:
        return value
    return float(str(np.float32(value)))
