"""Attention: who sees whom, and the one place where its kernel is chosen.

B rows, T positions of this call, S positions looked at, H heads, G key/value heads, C head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class KeyValueCache(Protocol):
    """What earlier calls saw of the same rows."""

    def update(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, G, T, C) at `positions` (B, T); give back all of the layer's: (B, G, S, C)."""

    def mask(self, positions: Tensor) -> Tensor:
        """Which of the S stored positions each of `positions` (B, T) sees: (B, 1, T, S) boolean."""


@dataclass(frozen=True)
class Context:
    """What the tokens of a call have around them, the same for every layer."""

    positions: Tensor
    """(B, T), or (1, T) when all rows are at the same positions"""
    rotation: tuple[Tensor, Tensor] | None = None
    """cosine and sine of the rotary angles, each (B or 1, 1, T, C/2)"""
    mask: Tensor | None = None
    """(B, 1, T, S), true where a query sees a key; none: a query sees itself and all before it"""
    cache: KeyValueCache | None = None


def attend(queries: Tensor, keys: Tensor, values: Tensor, context: Context, dropout: float = 0.0) -> Tensor:
    """Softmax attention of queries (B, H, T, C) over keys and values (B, G, S, C), G a divisor of H: (B, H, T, C).

    Without a mask the kernel is the causal one, which never looks at the upper triangle. Groups are not expanded here.
    """
    return F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=context.mask,
        dropout_p=dropout,
        is_causal=context.mask is None,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )


def document_mask(positions: Tensor) -> Tensor:
    """Which keys a query of packed documents sees, itself and those before it in its document: (B, T) -> (B, 1, T, T).

    A document begins wherever a position does not follow the one before it.
    """
    begins = F.pad(positions[:, 1:] != positions[:, :-1] + 1, (1, 0), value=True)
    document = begins.cumsum(1)
    return (document[:, :, None] == document[:, None, :]).tril()[:, None]


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pair (i, i + C/2) of each head by its angle: (B, H, T, C) -> same shape and dtype.

    RoPE (Su et al., 2021, arXiv:2104.09864) with the pairing of GPT-NeoX, which Hugging Face's Llama shares.
    """
    cosine, sine = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
