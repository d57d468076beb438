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
from torch import Tensor

from ingot.generate.reader import Piece
from ingot.generate.weights import Format
from ingot.model.architecture import parameter_counts
from ingot.model.coded import Coded, quantized
from ingot.model.codes import Codes, joined
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
    """The weights of a decoder, copied into the order and the format in which they are read; codes are as given."""

    def __init__(self, library: ctypes.CDLL, model: Decoder, number_format: Format):
        arch = model.arch
        model = quantized(model, number_format) if number_format in ("int8", "int4") else model
        self.library, self.arch, self.format = library, arch, number_format
        self._kept: list[Tensor] = []  # what the structs point at
        self.size = parameter_counts(arch)["total"]
        with torch.inference_mode():
            self.embedding = model.embedding
            table = model.positions.table if isinstance(model.positions, LearnedPositions) else None
            self.places = None if table is None else table.weight
            self._layers = (_Layer * arch.layers)(*map(self._layer, model.blocks))
            self.struct = _Model(
                arch.layers, arch.hidden_size, arch.heads, arch.kv_heads, arch.head_size, arch.mlp_size,
                arch.norm_eps, arch.head_size**-0.5, ACTIVATIONS.index(arch.mlp),
                *self._angles(model), self._layers, self._norm(model.norm),
                self._matrix(model.embedding if model.head is None else model.head),
            )  # fmt: skip

    def reader(self, rows: int, slots: int) -> NativeReader:
        """A reader of up to `rows` texts of up to `slots` tokens."""
        return NativeReader(self, rows, slots)

    def _layer(self, block: Any) -> _Layer:
        attention, mlp = block.attention, block.mlp
        return _Layer(
            self._norm(block.attention_norm),
            self._matrix(attention.query, attention.key, attention.value),
            *self._head_norms(attention),
            self._matrix(attention.output),
            self._norm(block.mlp_norm),
            # A gate is filled up to whole panels, so that its panels and those of its values part the same way.
            self._matrix(*([mlp.up] if self.arch.mlp == "gelu" else [mlp.gate, mlp.up]), rows=PANEL),
            self._matrix(mlp.down),
        )

    def _head_norms(self, attention: Attention) -> list[int | None]:
        norms = (attention.query_norm, attention.key_norm)
        return [self._keep(one.weight.float()) if isinstance(one, RMSNorm) else None for one in norms]

    def _matrix(self, *layers: Any, rows: int = 1) -> _Matrix:
        """Layers that read the same, as one matrix: their outputs one after the other, each filled up to `rows`."""
        bias, scales_at, number_format = None, None, self.format
        if getattr(layers[0], "bias", None) is not None:
            bias = self._keep(_filled_up(torch.cat([_filled_up(layer.bias.float(), rows) for layer in layers])))
        if isinstance(layers[0], Coded):
            codes = joined([layer.read().filled_up(rows) for layer in layers]).filled_up(PANEL, PANEL)
            (outputs, columns), number_format = codes.codes.shape, layers[0].kind
            packed, scales = packed_codes(codes)
            scales_at = self._keep(scales)
        else:
            whole = _filled_up(torch.cat([_filled_up(layer.weight, rows) for layer in layers]))
            whole = F.pad(whole, (0, -whole.shape[1] % PANEL))
            outputs, columns = whole.shape
            packed = packed_floats(whole, number_format)
        panels = outputs // PANEL
        return _Matrix(self._keep(packed), scales_at, bias, panels, columns, FORMATS.index(number_format))

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


def _filled_up(values: Tensor, rows: int = PANEL) -> Tensor:
    """With zeros up to a whole multiple of `rows`."""
    return F.pad(values, (*(0, 0) * (values.ndim - 1), 0, -len(values) % rows))


def packed_codes(matrix: Codes) -> tuple[Tensor, Tensor]:
    """A matrix (N, K), both whole panels, and its scales in the layout that cpp/matrices.h tells of."""
    by_panel = (-1, PANEL)
    if matrix.least is None:  # two columns of an output lie side by side
        pairs = matrix.codes.unflatten(0, (-1, 2, LANES)).unflatten(3, (-1, 2))  # (N / 32, 2, 16, K / 2, 2)
        return pairs.permute(0, 3, 1, 2, 4), matrix.scales[:, 0]
    eights = matrix.codes.to(torch.int32).unflatten(1, (-1, 8))  # (N, K / 8, 8)
    words = sum(eights[..., place] << (4 * place) for place in range(8))
    assert isinstance(words, Tensor)
    pairs = torch.stack([matrix.scales, matrix.least], -1).bfloat16()  # (N, K / 32, 2): a word in little-endian order
    return words.unflatten(0, by_panel).transpose(1, 2), pairs.unflatten(0, by_panel).transpose(1, 2)


def packed_floats(matrix: Tensor, number_format: Format) -> Tensor:
    """The same of floats, which have no scales."""
    if number_format == "bfloat16":  # a word holds outputs i and i + 16
        return matrix.bfloat16().unflatten(0, (-1, 2, LANES)).permute(0, 3, 2, 1)  # (N / 32, K, 16, 2)
    return matrix.float().unflatten(0, (-1, PANEL)).transpose(1, 2)


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
        stream[:, : arch.hidden_size] = self.model.embedding(torch.tensor(tokens))
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
