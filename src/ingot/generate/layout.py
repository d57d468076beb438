"""How a model's weights lie while it writes: laid out for read.cpp on a CPU, or in PyTorch's own layers elsewhere."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ingot.errors import UserError
from ingot.generate.build import library
from ingot.generate.native import NativeModel
from ingot.generate.reader import DecoderReader, Reader
from ingot.generate.weights import Format, Quantize, read_as
from ingot.model.architecture import Architecture
from ingot.model.coded import CodedLinear, kind_of, quantized
from ingot.model.codes import GROUP, ROUND, Codes, Kind
from ingot.model.decoder import Decoder


class Layout(Protocol):
    """Weights that any number of readers share."""

    arch: Architecture
    format: Format

    def reader(self, rows: int, slots: int) -> Reader:
        """A reader of up to `rows` texts of up to `slots` tokens, with a cache of its own."""


def lay_out(model: Decoder, quantize: Quantize | None = None) -> Layout:
    """The weights of `model` ready to be read, as they are now; narrowed to `quantize`, or in their own format.

    On a CPU they are a copy for read.cpp, where a compiler makes it. Raises UserError for codes that are to be other
    ones, and where PyTorch has no kernel for `quantize` on the model's device.
    """
    number_format = read_as(model, quantize)
    if model.norm.weight.device.type == "cpu" and (found := library()):
        return NativeModel(found, model, number_format)
    return PlainModel(model, number_format)


class PlainModel:
    """A decoder as PyTorch runs it: the model itself, or a copy with narrowed layers."""

    def __init__(self, model: Decoder, number_format: Format):
        """Raises UserError where floats are to be codes and PyTorch has no kernel for such on the model's device."""
        self.arch, self.format = model.arch, number_format
        self._model, self._head = model, None
        if number_format == "bfloat16" and model.head_weight.dtype != torch.bfloat16:
            self._model = copy.deepcopy(model).to(torch.bfloat16)
        elif number_format in ("int8", "int4"):
            if _has_kernel(number_format, model.norm.weight):
                self._model, self._head = _with_kernels(quantized(model, number_format))
            elif not kind_of(model):  # codes that a folder came with are read all the same, only slower
                device = model.norm.weight.device.type
                what = f"this PyTorch has no {number_format} weights on {device}"
                raise UserError(what, where="quantize", mend="leave it out, or take another")

    def reader(self, rows: int, slots: int) -> DecoderReader:
        """As `Layout.reader`."""
        return DecoderReader(self._model, rows, slots, head=self._head)


class Int8Linear(nn.Module):
    """x (…, K) -> (…, N) by whole numbers of eight bits, a scale for each output."""

    def __init__(self, weight: Codes, bias: Tensor | None, dtype: torch.dtype):
        super().__init__()
        self.codes, self.scales, self.bias = weight.codes, weight.scales[:, 0].to(dtype), bias

    def forward(self, x: Tensor) -> Tensor:
        made = torch.ops.aten._weight_int8pack_mm(x.flatten(0, -2), self.codes, self.scales)
        return _finished(made, x, self.bias)


class Int4Linear(nn.Module):
    """x (…, K) -> (…, N) by whole numbers of four bits, a scale and a least value for 32 columns of each output."""

    def __init__(self, weight: Codes, bias: Tensor | None, dtype: torch.dtype):
        super().__init__()
        self.outputs, self.bias = len(weight.codes), bias
        made, on_cuda = weight.filled_up(GROUP, 16 * GROUP), weight.codes.device.type == "cuda"
        assert made.least is not None
        self.columns, self.dtype = made.codes.shape[1], torch.bfloat16 if on_cuda else dtype
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


_LAYERS: dict[Kind, type[Int8Linear] | type[Int4Linear]] = {"int8": Int8Linear, "int4": Int4Linear}


def _finished(made: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    made = made.unflatten(0, x.shape[:-1])
    return made if bias is None else made + bias


def _has_kernel(kind: Kind, like: Tensor) -> bool:
    """Whether PyTorch multiplies codes where `like` is, and in its type."""
    try:
        for one in ("int8", kind):  # the head is int8 always
            _LAYERS[one](ROUND[one](torch.eye(GROUP).to(like)), None, like.dtype)(torch.zeros(1, GROUP).to(like))
    except RuntimeError:  # which an operation that is not there raises too
        return False
    return True


def _with_kernels(model: Decoder) -> tuple[Decoder, Int8Linear]:
    """A copy of a coded model whose blocks have PyTorch's layers for codes, and such a head; the rest is shared."""
    shared = [*model.parameters(), *model.buffers()]
    made = copy.deepcopy(model, {id(one): one for one in shared})
    for block in made.blocks:
        for part in block.children():
            for name, layer in part.named_children():
                if isinstance(layer, CodedLinear):
                    setattr(part, name, _LAYERS[layer.kind](layer.read(), layer.bias, layer.dtype))
    head: Any = model.embedding if model.head is None else model.head
    return made.eval(), Int8Linear(head.read(), None, head.dtype)
