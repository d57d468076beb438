"""A model as one GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ingot.convert.gguf.scheme import EMBEDDING, HEAD, is_paired, tensors, to_metadata, to_pairs
from ingot.convert.gguf.tokens import to_metadata as tokens_to_metadata
from ingot.convert.libraries import library
from ingot.errors import UserError
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2}  # kinds of weights, and their numbers there
BLOCK = 32  # numbers that share a scale in q8_0 and q4_0


def write(path: Path, model: Decoder, tokenizer: Tokenizer, kind: str, name: str = "") -> None:
    """Write `path`, weights stored as `kind`; vectors and positions are always f32, rows that no block divides f16.

    q4_0 keeps the embedding and the head in q8_0. Raises UserError for what llama.cpp can't represent.
    """
    gguf = library("gguf", "writing GGUF")
    arch = model.arch
    if tokenizer.vocabulary > arch.vocabulary:
        what = f"the tokenizer has {tokenizer.vocabulary:,} tokens and the model {arch.vocabulary:,}"
        raise UserError(what, where="export to gguf", mend="they do not belong together")
    values = to_metadata(arch) | tokens_to_metadata(tokenizer, arch.vocabulary)
    writer = gguf.GGUFWriter(path, arch.family)
    about = {"general.type": "model", "general.name": name or "ingot", "general.quantization_version": 2}
    for key, value in (about | {"general.file_type": FILE_TYPES[kind]} | values).items():
        _add(gguf, writer, key, value)
    shapes = {theirs: _shape(model, ours) for theirs, ours in tensors(model)}
    kinds = {theirs: _stored(gguf, theirs, shape, kind) for theirs, shape in shapes.items()}
    for theirs, shape in shapes.items():
        size = gguf.quants.quant_shape_to_byte_shape(shape, kinds[theirs])
        writer.add_tensor_info(theirs, size, np.dtype(np.uint8), int(np.prod(size)), raw_dtype=kinds[theirs])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for theirs, ours in tensors(model):  # one at a time: the model is in memory once
        values_there = gguf.quants.quantize(_values(model, ours), kinds[theirs])
        writer.write_tensor_data(np.ascontiguousarray(values_there).view(np.uint8))
    writer.close()


def _add(gguf: Any, writer: Any, key: str, value: Any) -> None:
    if key == "general.architecture":
        return
    types = gguf.GGUFValueType
    if isinstance(value, list):
        writer.add_array(key, value)
        return
    kind = {bool: types.BOOL, int: types.UINT32, float: types.FLOAT32, str: types.STRING}[type(value)]
    writer.add_key_value(key, value, kind)


def _stored(gguf: Any, name: str, shape: tuple[int, ...], kind: str) -> Any:
    """The type of one tensor."""
    types = gguf.GGMLQuantizationType
    if len(shape) == 1 or name.startswith("position_embd"):
        return types.F32
    if kind in ("q8_0", "q4_0"):
        if shape[-1] % BLOCK:
            return types.F16
        return types.Q8_0 if kind == "q8_0" or name in (EMBEDDING, HEAD) else types.Q4_0
    return types[kind.upper()]


def _shape(model: Decoder, ours: tuple[str, ...]) -> tuple[int, ...]:
    parts = [model.get_parameter(name) for name in ours]
    return (sum(len(part) for part in parts), *parts[0].shape[1:])


@torch.no_grad()
def _values(model: Decoder, ours: tuple[str, ...]) -> NDArray[np.float32]:
    parts = []
    for name in ours:
        weight = model.get_parameter(name).detach().float().cpu()
        parts.append(to_pairs(weight, model.arch.head_size) if is_paired(name, model.arch) else weight)
    return torch.cat(parts).contiguous().numpy()
