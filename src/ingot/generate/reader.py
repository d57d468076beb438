"""What reads tokens for a batch: pieces of several texts in, logits out, with what was read kept in a cache.

N tokens of a call, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ingot.generate.cache import StaticCache
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder


@dataclass(frozen=True)
class Piece:
    """Tokens of one row that follow each other, and of how many of the last ones the logits are wanted."""

    row: int
    begin: int
    """position of the first"""
    tokens: Sequence[int]
    wanted: int = 0


class Reader(Protocol):
    """A model with its cache, one row for each text."""

    arch: Architecture
    device: torch.device

    def read(self, pieces: Sequence[Piece]) -> Tensor:
        """Read the pieces, each of another row, and give the wanted logits (N, V), piece after piece.

        A piece begins where its row was read to, or earlier: what stood there is then forgotten.
        """


class DecoderReader:
    """Reads with the decoder itself, on any device; pieces of several tokens are padded to the longest of them."""

    def __init__(self, model: Decoder, rows: int, slots: int, head: Callable[[Tensor], Tensor] | None = None):
        """`head` turns hidden states into logits; none: the model's own does."""
        weight = model.head_weight
        self.model, self.arch, self.device = model, model.arch, weight.device
        self._head = head or (lambda hidden: F.linear(hidden, weight))
        self.cache = StaticCache(model.arch, rows, slots, dtype=weight.dtype, device=weight.device)

    @torch.inference_mode()
    def read(self, pieces: Sequence[Piece]) -> Tensor:
        """As `Reader.read`; single tokens are read together, and longer pieces together."""
        states: dict[int, Tensor] = {}
        with _evaluating(self.model):
            for group in ([p for p in pieces if len(p.tokens) == 1], [p for p in pieces if len(p.tokens) > 1]):
                if group:
                    states |= self._states(group)
            return self._head(torch.cat([states[piece.row] for piece in pieces]))

    def _states(self, group: Sequence[Piece]) -> dict[int, Tensor]:
        """The final states (wanted, D) of each piece by its row. The last token of a short piece is repeated."""
        longest = max(len(piece.tokens) for piece in group)
        tokens, positions = [], []
        for piece in group:
            padding = longest - len(piece.tokens)
            last = piece.begin + len(piece.tokens) - 1
            tokens.append([*piece.tokens, *[piece.tokens[-1]] * padding])
            positions.append([*range(piece.begin, last + 1), *[last] * padding])
        view = self.cache.rows([piece.row for piece in group], 1 + max(map(max, positions)))
        places = torch.tensor(positions, device=self.device)
        hidden = self.model.hidden(torch.tensor(tokens, device=self.device), places, cache=view)  # (R, T, D)
        return {
            piece.row: row[len(piece.tokens) - piece.wanted : len(piece.tokens)]
            for piece, row in zip(group, hidden, strict=True)
        }


@contextmanager
def _evaluating(model: Decoder) -> Iterator[None]:
    """Without dropout, also where the model is being trained."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()
