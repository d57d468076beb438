"""An ONNX graph in onnxruntime beside the model that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ingot.convert.comparison import Verdict, check_ids, judge, own_reading, rate
from ingot.convert.libraries import library
from ingot.convert.onnx.export import FILE, cache_names
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

BOUND = 1e-4  # of the difference, as a share of the logits' spread: both compute in float32
WHO = "onnxruntime"


class Session:
    """A graph in onnxruntime: `read` some tokens of every row behind those that it has read before."""

    def __init__(self, path: Path, arch: Architecture, rows: int = 1):
        runtime = library("onnxruntime", "comparing with onnxruntime")
        self._session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._names = cache_names(arch, "past_key_values")
        empty = np.zeros((rows, arch.kv_heads, 0, arch.head_size), np.float32)
        self._past: list[NDArray[Any]] = [empty] * len(self._names)

    def read(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (B, T, V) of `ids` (B, T)."""
        begin = self._past[0].shape[2]
        positions = np.broadcast_to(np.arange(begin, begin + ids.shape[1]), ids.shape)
        given = {
            "input_ids": ids,
            "attention_mask": np.ones((len(ids), begin + ids.shape[1]), np.int64),
            "position_ids": np.ascontiguousarray(positions, np.int64),
        }
        logits, *self._past = self._session.run(None, given | dict(zip(self._names, self._past, strict=True)))
        return logits


def check(folder: Path, model: Decoder, tokenizer: Tokenizer) -> Verdict:
    """Read a text at once and write one token by token in onnxruntime, and compare both with ingot's own.

    Raises UserError where they differ.
    """
    own = own_reading(model, tokenizer)
    read_back = Tokenizer.load(folder)
    check_ids(own, [read_back.encode(text) for text in own.texts], "the tokenizer beside the graph")
    if read_back.fingerprint != tokenizer.fingerprint:
        raise UserError("the tokenizer beside the graph is another one", where=str(folder), mend="tell us about it")
    path = np.array([own.path], np.int64)
    twice = Session(folder / FILE, model.arch, rows=2).read(np.repeat(path, 2, 0))
    logits = torch.from_numpy(twice)
    session, written = Session(folder / FILE, model.arch), []
    step = session.read(path[:, : own.read])
    for _ in own.written:
        written.append(int(step[0, -1, : tokenizer.vocabulary].argmax()))
        step = session.read(np.array([written[-1:]], np.int64))
    apart = torch.cat([rate(row, own.path, own.read) - own.rated for row in logits])
    return judge(own, written, apart, BOUND, WHO)
