"""How a model's weights lie while it writes: laid out for read.cpp on a CPU, or in PyTorch's own layers elsewhere."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ingot.errors import UserError
from ingot.generate.build import library
from ingot.generate.native import NativeModel
from ingot.generate.reader import DecoderReader, Reader
from ingot.generate.weights import GROUP, Format, Quantize, to_int4, to_int8
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder


class Layout(Protocol):
    """Weights that any number of readers share."""

    arch: Architecture
    format: Format

    def reader(self, rows: int, slots: int) -> Reader:
        """A reader of up to `rows` texts of up to `slots` tokens, with a cache of its own."""


def lay_out(model: Decoder, quantize: Quantize | None = None) -> Layout:
    """The weights of `model` ready to be read, as they are now; narrowed to `quantize`, or in their own type.

    On a CPU they are a copy for read.cpp, where a compiler makes it. Raises UserError where PyTorch has no kernel for
    `quantize` on the model's device.
    """
    own: Format = "bfloat16" if model.head_weight.dtype == torch.bfloat16 else "float32"
    if model.head_weight.device.type == "cpu" and (found := library()):
        return NativeModel(found, model, quantize or own)
    return PlainModel(model, quantize or own)


class PlainModel:
    """A decoder as PyTorch runs it: the model itself, or a copy with narrowed layers."""

    def __init__(self, model: Decoder, number_format: Format):
        """Raises UserError where PyTorch has no kernel for the format on the model's device."""
        self.arch, self.format = model.arch, number_format
        self._model, self._head = model, None
        if number_format == "bfloat16" and model.head_weight.dtype != torch.bfloat16:
            self._model = copy.deepcopy(model).to(torch.bfloat16)
        elif number_format in ("int8", "int4"):
            self._model, self._head = _narrowed(model, _LAYERS[number_format]), Int8Linear(model.head_weight, None)

    def reader(self, rows: int, slots: int) -> DecoderReader:
        """As `Layout.reader`."""
        return DecoderReader(self._model, rows, slots, head=self._head)


class Int8Linear(nn.Module):
    """x (…, K) -> (…, N) by whole numbers of eight bits, a scale for each output."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        made = to_int8(weight.detach())
        self.codes, self.scales, self.bias = made.codes, made.scales[:, 0].to(weight.dtype), bias

    def forward(self, x: Tensor) -> Tensor:
        made = torch.ops.aten._weight_int8pack_mm(x.flatten(0, -2), self.codes, self.scales)
        return _finished(made, x, self.bias)


class Int4Linear(nn.Module):
    """x (…, K) -> (…, N) by whole numbers of four bits, a scale and a least value for 32 columns of each output."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.outputs, self.bias = len(weight), bias
        filled = F.pad(weight.detach(), (0, -weight.shape[1] % (16 * GROUP), 0, -len(weight) % GROUP))
        made, on_cuda = to_int4(filled), weight.device.type == "cuda"
        assert made.least is not None
        self.columns, self.dtype = filled.shape[1], torch.bfloat16 if on_cuda else weight.dtype
        pairs = torch.stack([made.scales, made.least + 8 * made.scales], -1)  # the kernels take 8 off each code
        self.pairs = pairs.transpose(0, 1).contiguous().to(self.dtype)
        operations = torch.ops.aten
        if on_cuda:
            self.packed = operations._convert_weight_to_int4pack(made.codes[:, ::2] << 4 | made.codes[:, 1::2], 8)
            self.kernel = operations._weight_int4pack_mm
        else:
            self.packed = operations._convert_weight_to_int4pack_for_cpu(made.codes.int(), 1)
            self.kernel = operations._weight_int4pack_mm_for_cpu

    def forward(self, x: Tensor) -> Tensor:
        rows = F.pad(x.flatten(0, -2), (0, self.columns - x.shape[-1])).to(self.dtype)
        return _finished(self.kernel(rows, self.packed, GROUP, self.pairs)[:, : self.outputs].to(x.dtype), x, self.bias)


_LAYERS: dict[Format, type[Int8Linear] | type[Int4Linear]] = {"int8": Int8Linear, "int4": Int4Linear}


def _finished(made: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    made = made.unflatten(0, x.shape[:-1])
    return made if bias is None else made + bias


def _narrowed(model: Decoder, kind: type[Int8Linear] | type[Int4Linear]) -> Decoder:
    """A copy of the model whose blocks have layers of `kind`; what else there is, is shared."""
    try:
        kind(torch.eye(GROUP).to(model.head_weight), None)(torch.zeros(1, GROUP).to(model.head_weight))
    except RuntimeError:  # which an operation that is not there raises too
        name, device = kind.__name__.removesuffix("Linear").lower(), model.head_weight.device.type
        what = f"this PyTorch has no {name} weights on {device}"
        raise UserError(what, where="quantize", mend="leave it out, or take another") from None
    shared = {id(parameter): parameter for parameter in model.parameters()}
    made = copy.deepcopy(model, shared)
    for block in made.blocks:
        for part in block.children():
            for name, layer in part.named_children():
                if isinstance(layer, nn.Linear):
                    setattr(part, name, kind(layer.weight, layer.bias))
    return made.eval()
