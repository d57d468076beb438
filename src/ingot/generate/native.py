"""A decoder laid out for reading on a CPU: weights in the order in which cpp/read.cpp goes through them, and its cache.

M tokens of a call, D hidden size, F MLP size, V vocabulary; padded sizes are multiples of PANEL.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ingot.generate.reader import Piece
from ingot.generate.weights import Format, to_int4, to_int8
from ingot.model.decoder import Attention, Decoder, LearnedPositions, RMSNorm

PANEL, LANES, STRIPE, BLOCK = 32, 16, 64, 96  # as in cpp/vectors.h
FORMATS: tuple[Format, ...] = ("float32", "bfloat16", "int8", "int4")
ACTIVATIONS = ("gelu", "swiglu", "geglu")
ALONE = 2**20  # products of a call below which threads would wait for each other longer than they work


class _Matrix(Structure):
    _fields_ = [
        ("weights", c_void_p), ("scales", c_void_p), ("bias", c_void_p),
        ("panels", c_int64), ("columns", c_int64), ("format", c_int32),
    ]  # fmt: skip


class _Norm(Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p)]


class _Layer(Structure):
    _fields_ = [
        ("attention_norm", _Norm), ("qkv", _Matrix), ("query_norm", c_void_p), ("key_norm", c_void_p),
        ("output", _Matrix), ("mlp_norm", _Norm), ("up", _Matrix), ("down", _Matrix),
    ]  # fmt: skip


class _Model(Structure):
    _fields_ = [
        *[(name, c_int64) for name in ("layers", "hidden", "heads", "groups", "size", "mlp")],
        ("eps", c_float), ("scale", c_float), ("activation", c_int32),
        ("cosines", c_void_p), ("sines", c_void_p), ("layer", POINTER(_Layer)), ("norm", _Norm), ("head", _Matrix),
    ]  # fmt: skip


class _Cache(Structure):
    _fields_ = [("keys", c_void_p), ("values", c_void_p), ("rows", c_int64), ("slots", c_int64)]


class _Call(Structure):
    _fields_ = [
        ("tokens", c_int64), ("wanted", c_int64),
        *[(name, c_void_p) for name in ("stream", "rows", "positions", "asked", "normed", "wide", "mixed", "inner")],
        *[(name, c_void_p) for name in ("logits", "panels", "scores")],
        ("panel_room", c_int64), ("threads", c_int32),
    ]  # fmt: skip


def padded(count: int, unit: int = PANEL) -> int:
    """`count`, up to a whole number of `unit`s."""
    return -(-count // unit) * unit


class NativeModel:
    """The weights of a decoder, copied into the order and the format in which they are read."""

    def __init__(self, library: ctypes.CDLL, model: Decoder, number_format: Format):
        arch = model.arch
        self.library, self.arch, self.format = library, arch, number_format
        self._kept: list[Tensor] = []  # what the structs point at
        self.size = sum(parameter.numel() for parameter in model.parameters())
        with torch.inference_mode():
            self.embedding = model.embedding.weight
            table = model.positions.table if isinstance(model.positions, LearnedPositions) else None
            self.places = None if table is None else table.weight
            self._layers = (_Layer * arch.layers)(*map(self._layer, model.blocks))
            self.struct = _Model(
                arch.layers, arch.hidden_size, arch.heads, arch.kv_heads, arch.head_size, arch.mlp_size,
                arch.norm_eps, arch.head_size**-0.5, ACTIVATIONS.index(arch.mlp),
                *self._angles(model), self._layers, self._norm(model.norm),
                self._matrix([model.head_weight], [None], "int8" if number_format == "int4" else number_format),
            )  # fmt: skip

    def reader(self, rows: int, slots: int) -> NativeReader:
        """A reader of up to `rows` texts of up to `slots` tokens."""
        return NativeReader(self, rows, slots)

    def _layer(self, block: Any) -> _Layer:
        attention, mlp = block.attention, block.mlp
        ups = [mlp.up] if self.arch.mlp == "gelu" else [mlp.gate, mlp.up]
        return _Layer(
            self._norm(block.attention_norm),
            self._joined(attention.query, attention.key, attention.value),
            *self._head_norms(attention),
            self._joined(attention.output),
            self._norm(block.mlp_norm),
            self._matrix([self._whole_panels(up.weight) for up in ups], [self._whole_panels(up.bias) for up in ups]),
            self._joined(mlp.down),
        )

    def _head_norms(self, attention: Attention) -> list[int | None]:
        norms = (attention.query_norm, attention.key_norm)
        return [self._keep(one.weight.float()) if isinstance(one, RMSNorm) else None for one in norms]

    def _whole_panels(self, values: Tensor | None) -> Tensor | None:
        """Outputs filled up with zeros, so that a gate's panels and those of its values part the same way."""
        return None if values is None else F.pad(values, (*(0, 0) * (values.ndim - 1), 0, -len(values) % PANEL))

    def _joined(self, *layers: nn.Linear) -> _Matrix:
        return self._matrix([layer.weight for layer in layers], [layer.bias for layer in layers])

    def _matrix(
        self, weights: Sequence[Tensor | None], biases: Sequence[Tensor | None], number_format: Format | None = None
    ) -> _Matrix:
        """Layers that read the same, as one matrix with their outputs one after the other."""
        number_format = number_format or self.format
        whole = torch.cat([weight for weight in weights if weight is not None])
        whole = F.pad(whole, (0, -whole.shape[1] % PANEL, 0, -whole.shape[0] % PANEL))
        bias = None
        if biases[0] is not None:
            whole_bias = torch.cat([one for one in biases if one is not None]).float()
            bias = self._keep(F.pad(whole_bias, (0, -len(whole_bias) % PANEL)))
        packed, scales = packed_as(whole, number_format)
        return _Matrix(
            self._keep(packed), None if scales is None else self._keep(scales), bias,
            whole.shape[0] // PANEL, whole.shape[1], FORMATS.index(number_format),
        )  # fmt: skip

    def _norm(self, norm: Any) -> _Norm:
        bias = getattr(norm, "bias", None)
        return _Norm(self._keep(norm.weight.float()), None if bias is None else self._keep(bias.float()))

    def _angles(self, model: Decoder) -> tuple[int | None, int | None]:
        """Cosines and sines (context, C / 2) of the rotary positions; none where positions are learned."""
        if self.places is not None:
            return None, None
        _, rotation = model.positions(torch.zeros(1, 1, 1), torch.arange(self.arch.context)[None])
        cosines, sines = (self._keep(part[0, 0].float()) for part in rotation)
        return cosines, sines

    def _keep(self, values: Tensor) -> int:
        values = values.detach().contiguous()
        self._kept.append(values)
        return values.data_ptr()


def packed_as(matrix: Tensor, number_format: Format) -> tuple[Tensor, Tensor | None]:
    """A matrix (N, K), both whole panels, and its scales in the layout that cpp/matrices.h tells of."""
    by_panel = (-1, PANEL)
    if number_format == "int4":
        made = to_int4(matrix)
        eights = made.codes.to(torch.int32).unflatten(1, (-1, 8))  # (N, K / 8, 8)
        words = sum(eights[..., place] << (4 * place) for place in range(8))
        assert isinstance(words, Tensor) and made.least is not None
        pairs = torch.stack([made.scales, made.least], -1).bfloat16()  # (N, K / 32, 2): a word in little-endian order
        return (
            words.unflatten(0, by_panel).transpose(1, 2).contiguous(),
            pairs.unflatten(0, by_panel).transpose(1, 2).contiguous(),
        )
    if number_format == "int8":  # two columns of an output lie side by side
        codes = to_int8(matrix)
        pairs = codes.codes.unflatten(0, (-1, 2, LANES)).unflatten(3, (-1, 2))  # (N / 32, 2, 16, K / 2, 2)
        return pairs.permute(0, 3, 1, 2, 4).contiguous(), codes.scales[:, 0].contiguous()
    if number_format == "bfloat16":  # a word holds outputs i and i + 16
        halves = matrix.bfloat16().unflatten(0, (-1, 2, LANES))  # (N / 32, 2, 16, K)
        return halves.permute(0, 3, 2, 1).contiguous(), None
    return matrix.float().unflatten(0, by_panel).transpose(1, 2).contiguous(), None


class NativeReader:
    """Reads tokens of several rows in one call of read.cpp; its cache keeps keys by 64 slots, as they are looked at."""

    def __init__(self, model: NativeModel, rows: int, slots: int):
        arch = model.arch
        self.model, self.arch, self.device = model, arch, torch.device("cpu")
        self._slots = padded(slots, STRIPE)
        shape = (arch.layers, rows, arch.kv_heads, self._slots)
        self._keys = torch.zeros(*shape, arch.head_size)
        self._values = torch.zeros(*shape, padded(arch.head_size, LANES))
        self._cache = _Cache(self._keys.data_ptr(), self._values.data_ptr(), rows, self._slots)
        self._room: dict[str, Tensor] = {}
        self._tokens = 0  # that there is room for

    @torch.inference_mode()
    def read(self, pieces: Sequence[Piece]) -> Tensor:
        """As `Reader.read`."""
        tokens: list[int] = []
        rows: list[int] = []
        positions: list[int] = []
        asked: list[int] = []
        for piece in pieces:
            count = len(piece.tokens)
            tokens += piece.tokens
            rows += [piece.row] * count
            positions += range(piece.begin, piece.begin + count)
            asked += range(len(tokens) - piece.wanted, len(tokens))
        threads = torch.get_num_threads() if len(tokens) * self.model.size > ALONE else 1
        self._make_room(len(tokens), threads)
        arch, room = self.arch, self._room
        stream = room["stream"][: len(tokens)]
        stream[:, : arch.hidden_size] = self.model.embedding[tokens]
        if self.model.places is not None:
            stream[:, : arch.hidden_size] += self.model.places[positions]
        logits = torch.empty(len(asked), padded(arch.vocabulary))
        places = [torch.tensor(one, dtype=torch.int32) for one in (rows, positions, asked)]
        call = _Call(
            len(tokens), len(asked), stream.data_ptr(), *[one.data_ptr() for one in places],
            *[room[name].data_ptr() for name in ("normed", "wide", "mixed", "inner")], logits.data_ptr(),
            room["panels"].data_ptr(), room["scores"].data_ptr(), room["panels"].shape[1], threads,
        )  # fmt: skip
        self.model.library.read(byref(self.model.struct), byref(self._cache), byref(call))
        return logits[:, : arch.vocabulary]

    def _make_room(self, tokens: int, threads: int) -> None:
        """Room for what lies between the operations; padding is zero, and stays so."""
        if tokens <= self._tokens and self._room["panels"].shape[0] >= threads:
            return
        arch = self.arch
        hidden, inner, mixed = map(padded, (arch.hidden_size, arch.mlp_size, arch.heads * arch.head_size))
        qkv = padded((arch.heads + 2 * arch.kv_heads) * arch.head_size)
        self._tokens = max(tokens, self._tokens)
        widths = {"stream": hidden, "normed": hidden, "wide": max(qkv, 2 * inner), "mixed": mixed, "inner": inner}
        self._room = {name: torch.zeros(self._tokens, width) for name, width in widths.items()}
        self._room["panels"] = torch.empty(threads, (BLOCK // 2 + 4) * max(hidden, inner, mixed) + BLOCK)
        self._room["scores"] = torch.empty(threads, 4 * self._slots)
