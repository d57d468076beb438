"""A decoder whose matrices are whole numbers, in memory and in a folder: it is read as any other, but never learns.

N outputs, K columns, V vocabulary, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ingot.errors import UserError
from ingot.model.codes import ROUND, Codes, Kind
from ingot.model.decoder import Decoder
from ingot.model.foreign import check_beside, check_held, inside, read_json
from ingot.model.huggingface import from_config, load_model, read_file, stated_kind

CODES = "codes.safetensors"  # another name than that of floats: transformers warns of codes and makes up the weights


class Coded(nn.Module):
    """A matrix (N, K) in place of a layer's weight, as it lies in a file: in int4 two codes share a byte."""

    codes: Tensor
    scales: Tensor
    least: Tensor | None

    def __init__(self, matrix: Tensor, kind: Kind):
        super().__init__()
        self.kind, self.columns, self.dtype = kind, matrix.shape[1], matrix.dtype
        made = ROUND[kind](matrix.detach())
        four = made.least is not None
        self.register_buffer("codes", made.codes[:, ::2] | made.codes[:, 1::2] << 4 if four else made.codes)
        self.register_buffer("scales", made.scales.bfloat16() if four else made.scales)
        self.register_buffer("least", None if made.least is None else made.least.bfloat16())

    def read(self) -> Codes:
        """The codes one by one, K filled up to whole groups in int4."""
        if self.least is None:
            return Codes(self.codes, self.scales)
        each = torch.stack([self.codes & 15, self.codes >> 4], -1).flatten(1)
        return Codes(each, self.scales.float(), self.least.float())

    @property
    def weight(self) -> Tensor:
        """The matrix (N, K) that stands for, made at each call."""
        return self.read().values()[:, : self.columns].to(self.dtype)


class CodedLinear(Coded):
    """x (…, K) -> (…, N), on any device, by a weight that is made anew at each call."""

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: Kind):
        super().__init__(weight, kind)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class CodedEmbedding(Coded):
    """Tokens (…) -> (…, D), by a table (V, D) in int8."""

    def __init__(self, table: nn.Embedding):
        super().__init__(table.weight, "int8")

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.codes[tokens].float() * self.scales[tokens]).to(self.dtype)


def kind_of(model: Decoder) -> Kind | None:
    """The codes that the matrices of `model` are; None: it has floats."""
    block: Any = model.blocks[0]
    return block.attention.query.kind if isinstance(block.attention.query, Coded) else None


def coded(model: Decoder, kind: Kind) -> Decoder:
    """`model`, of floats, as a folder holds it: its matrices as `kind`, embedding and head as int8; the rest is shared.

    A tied head is the embedding's codes.
    """
    made: Any = _with_coded_blocks(model, kind)
    made.embedding = CodedEmbedding(model.embedding)
    made.head = None if model.head is None else CodedLinear(model.head.weight, None, "int8")
    return made


def quantized(model: Decoder, kind: Kind) -> Decoder:
    """`model` as it writes when it is asked for `kind`: what is looked up, and not multiplied, stays as it is.

    One that is coded already is given back: codes are never made of codes.
    """
    if kind_of(model):
        return model
    made: Any = _with_coded_blocks(model, kind)
    made.head = CodedLinear(model.head_weight, None, "int8")
    return made


def _with_coded_blocks(model: Decoder, kind: Kind) -> Decoder:
    made = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    for block in made.blocks:
        for part in block.children():
            for name, layer in part.named_children():
                if isinstance(layer, nn.Linear):
                    setattr(part, name, CodedLinear(layer.weight, layer.bias, kind))
    return made.eval()


def load_to_read(folder: Path, *, device: torch.device | str = "cpu") -> Decoder:
    """The model in a folder, to be read: with the codes that the folder holds, or with floats as by `load_model`.

    Raises UserError for a folder that is incomplete, damaged or of another architecture. One with codes is looked at
    file by file before it is read, as a stranger's is.
    """
    path = inside(folder, "config.json")
    config = read_json(path)
    kind = stated_kind(config)
    if kind is None:
        return load_model(folder, device=device)
    arch = from_config({name: config[name] for name in config if name != "quantization_config"}, where=str(path))
    check_beside(folder)
    found = read_file(inside(folder, CODES))
    check_held(arch, sum(value.numel() for value in found.values()), where=str(folder))
    with torch.device("meta"):  # no memory before every tensor is known to be of its size
        model = coded(Decoder(arch), kind).requires_grad_(False)
    _check(found, model.state_dict(), where=str(folder / CODES))
    model.to_empty(device=device)
    for name, value in model.state_dict().items():
        value.copy_(found[name])
    return model


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Raises UserError with the first tensor that is not as ingot writes it."""
    for name, like in expected.items():
        if name not in found:
            raise UserError(f"the tensor {name} is missing", where=where, mend="the folder may be incomplete")
        value = found[name]
        if value.shape != like.shape or value.dtype != like.dtype:
            what = f"{name} holds {tuple(value.shape)} {value.dtype}, and {tuple(like.shape)} {like.dtype} is expected"
            raise UserError(what, where=where, mend="config.json and the codes do not belong together")
        if not torch.isfinite(value).all() or (value.dtype == torch.int8 and value.amin() < -127):
            raise UserError(f"{name} holds what is no weight", where=where, mend="the file is damaged")
    if left := found.keys() - expected.keys():
        raise UserError(f"the tensor {min(left)} has no place in the model", where=where, mend="check config.json")
