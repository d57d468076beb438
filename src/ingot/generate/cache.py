"""The key/value cache of a batch of rows, allocated once.

L layers, B rows, G key/value heads, S slots, T positions of a call, C head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ingot.model.architecture import Architecture


class StaticCache:
    """Keys and values of every row, where slot s of a row belongs to the token at position s.

    A position is written before any query at or after it looks, so whatever lies in later slots (padding behind a short
    prompt, a rejected draft, an earlier request) is never seen, and going back is only to write again. Rows share
    no length: unequal prompts need no padding on the left. Heads are stored as they are, G of them.
    """

    def __init__(self, arch: Architecture, rows: int, slots: int, *, dtype: torch.dtype, device: torch.device):
        shape = (arch.layers, rows, arch.kv_heads, slots, arch.head_size)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)  # (L, B, G, S, C)
        self.values = torch.zeros_like(self.keys)
        self._rows = torch.arange(rows, device=device)[:, None]
        self._slots = torch.arange(slots, device=device)

    def update(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, G, T, C) at `positions` (B or 1, T); give back the layer's, (B, G, S, C)."""
        for store, new in ((self.keys[layer], keys), (self.values[layer], values)):
            store[self._rows, :, positions] = new.transpose(1, 2).to(store.dtype)
        return self.keys[layer], self.values[layer]

    def mask(self, positions: Tensor) -> Tensor:
        """A query at position p sees the slots 0 … p: (B or 1, T) -> (B or 1, 1, T, S)."""
        return (self._slots <= positions[..., None])[:, None]
