"""The model and its loss as one module: what DDP and the like wrap."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ingot.data.loader import TokenBatch
from ingot.engine.precision import narrowed
from ingot.model.decoder import Decoder
from ingot.model.objective import Objective


class LossModel(nn.Module):
    """A batch in, its summed loss out; matrix products in `precision`, on `device`, where the model is."""

    def __init__(self, model: Decoder, objective: Objective, device: torch.device, precision: str):
        super().__init__()
        self.model, self.objective = model, objective
        self.device, self.precision = device, precision

    def forward(self, batch: TokenBatch, candidates: int = 0) -> tuple[Tensor, int]:
        """The summed loss, and how many tokens of the vocabulary it was taken over; `candidates`: a sample of them."""
        batch = batch.to(self.device)
        with narrowed(self.precision, self.device):
            hidden = self.model.hidden(batch.inputs, batch.positions, packed=batch.packed).flatten(0, 1)
            return self.objective.total(hidden, self.model.head_weight, batch.targets.flatten(), candidates)
