"""The key/value cache of a batch of rows, allocated once.

L layers, B rows, G key/value heads, S slots, T positions of a call, C head size.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        self._every = CacheRows(self, list(range(rows)), slots)

    def update(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, G, T, C) at `positions` (B or 1, T); give back the layer's, (B, G, S, C)."""
        return self._every.update(layer, keys, values, positions)

    def mask(self, positions: Tensor) -> Tensor:
        """A query at position p sees the slots 0 … p: (B or 1, T) -> (B or 1, 1, T, S)."""
        return self._every.mask(positions)

    def rows(self, rows: Sequence[int], filled: int) -> CacheRows:
        """The cache of some rows, of which the first `filled` slots are looked at."""
        return CacheRows(self, rows, filled)


class CacheRows:
    """Some rows of a cache, as one call of a model sees them; only the slots that are filled."""

    def __init__(self, cache: StaticCache, rows: Sequence[int], filled: int):
        self._cache, self._filled = cache, filled
        device = cache.keys.device
        self._rows = torch.tensor(rows, device=device)[:, None]
        self._all = list(rows) == list(range(cache.keys.shape[1]))
        self._slots = torch.arange(filled, device=device)

    def update(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (R, G, T, C) at `positions` (R or 1, T); give back those rows', (R, G, filled, C)."""
        for store, new in ((self._cache.keys[layer], keys), (self._cache.values[layer], values)):
            store[self._rows, :, positions] = new.transpose(1, 2).to(store.dtype)
        return self._filled_part(self._cache.keys[layer]), self._filled_part(self._cache.values[layer])

    def mask(self, positions: Tensor) -> Tensor:
        """A query at position p sees the slots 0 … p: (R or 1, T) -> (R or 1, 1, T, filled)."""
        return (self._slots <= positions[..., None])[:, None]

    def _filled_part(self, store: Tensor) -> Tensor:
        seen = store[:, :, : self._filled]
        return seen if self._all else seen[self._rows[:, 0]]
