"""A model as one ONNX graph with a key/value cache, beside its tokenizer; names as in Hugging Face's Optimum.

B rows, T tokens of a call, P tokens in the cache, G key/value heads, C head size, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ingot.convert.libraries import library
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import write_config
from ingot.tokenizer.tokenizer import Tokenizer

FILE = "model.onnx"
ONE_FILE = 1_800_000_000  # bytes of weights; protobuf holds 2 GB, and what is larger lies beside the graph
OPSET = 18


def cache_names(arch: Architecture, of: str) -> list[str]:
    """The keys and values of every layer, as inputs (`past_key_values`) or as outputs (`present`)."""
    return [f"{of}.{layer}.{part}" for layer in range(arch.layers) for part in ("key", "value")]


class _Grown:
    """A cache that is longer after each call, for one call."""

    def __init__(self, past: tuple[Tensor, ...], seen: Tensor):
        self.parts, self._seen = list(past), seen

    def update(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, G, T, C) behind those of the layer: (B, G, P + T, C)."""
        for place, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self.parts[place] = torch.cat([self.parts[place], new], 2)
        return self.parts[2 * layer], self.parts[2 * layer + 1]

    def mask(self, positions: Tensor) -> Tensor:
        """(B, 1, T, P + T)."""
        return self._seen


class _Step(nn.Module):
    """What the graph computes: tokens and a cache in, logits and a longer cache out."""

    def __init__(self, model: Decoder):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """input_ids and position_ids (B, T), attention_mask (B, P + T), past 2 x layers of (B, G, P, C)."""
        length, before = input_ids.shape[1], past[0].shape[2]
        order = torch.arange(before + length)
        behind = order[None, :] <= (torch.arange(length) + before)[:, None]  # (T, P + T)
        kept = attention_mask.index_select(1, order).bool()  # its length is no other symbol's to the exporter
        cache = _Grown(past, behind[None, None] & kept[:, None, None, :])
        logits = self.model(input_ids, position_ids, cache=cache)
        return (logits, *cache.parts)


def write(folder: Path, model: Decoder, tokenizer: Tokenizer) -> None:
    """Write the graph, config.json and the tokenizer. Raises UserError where the exporter's libraries are missing."""
    for name in ("onnx", "onnxscript"):
        library(name, "writing ONNX")
    arch = model.arch
    if arch.context < 4:
        raise UserError("a context of less than 4 tokens", where="export to onnx", mend="there is no use for it")
    rows, before, length = 2, 2, 2  # sizes to trace with: all three are free in the graph
    past = tuple(torch.zeros(rows, arch.kv_heads, before, arch.head_size) for _ in range(2 * arch.layers))
    positions = torch.arange(before, before + length).expand(rows, -1).contiguous()
    mask = torch.ones(rows, before + length, dtype=torch.long)
    free = torch.export.Dim.DYNAMIC
    plain = {0: free, 1: free}
    shapes = (plain, plain, plain, tuple({0: free, 2: free} for _ in past))
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            _Step(copy.deepcopy(model).float().eval()),
            (torch.zeros_like(positions), mask, positions, past),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=["input_ids", "attention_mask", "position_ids", *cache_names(arch, "past_key_values")],
            output_names=["logits", *cache_names(arch, "present")],
            verbose=False,
        )
        assert program is not None
        size = sum(4 * parameter.numel() for parameter in model.parameters())
        program.save(folder / FILE, external_data=size > ONE_FILE)
    write_config(arch, folder, dtype=torch.float32, end=tokenizer.end)
    tokenizer.save(folder)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter talks of libraries that it could use, and of its own changes to come."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
