"""Small models, and a tokenizer of bytes, for the generator's tests."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.initial import Scaled

END = 256
SHAPE = {"vocabulary": 257, "context": 64, "layers": 2, "hidden_size": 48, "heads": 4}
ARCHITECTURES = {
    "gpt2": Architecture(family="gpt2", **SHAPE),
    "llama": Architecture(family="llama", kv_heads=2, **SHAPE),
    "qwen3": Architecture(family="qwen3", kv_heads=1, head_size=20, **SHAPE),
}


class ByteTokenizer:
    """As much of a tokenizer as the generator uses: every byte is a token."""

    vocabulary, end = 257, END

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return bytes(ids)

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(one for one in ids if one != END).decode(errors="replace")


def small_model(arch: Architecture, width: float = 0.3) -> Decoder:
    """A model in which every weight counts, biases and gains too."""
    model = Decoder(arch, init=Scaled(width=width)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model
