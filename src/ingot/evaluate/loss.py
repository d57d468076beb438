"""Loss, perplexity and bits per byte on held-out text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ingot.data.loader import TokenBatch
from ingot.distributed import World
from ingot.errors import UserError
from ingot.evaluate.bootstrap import exponential
from ingot.model.decoder import Decoder
from ingot.model.loss import token_losses
from ingot.model.objective import IGNORED


@dataclass(frozen=True)
class HeldOutLoss:
    """How well a model predicts `tokens` tokens that stand for `bytes` bytes of UTF-8."""

    nats: float  # sum over the tokens
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return exponential(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of the text: comparable between tokenizers."""
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf


@torch.no_grad()
def held_out_loss(
    model: Decoder, batches: Iterable[TokenBatch], token_bytes: Tensor, world: World | None = None
) -> HeldOutLoss:
    """Score the targets of `batches` that are not -100, with dropout off. token_bytes (V,): UTF-8 bytes of each id.

    With a `world`, each rank scores its own batches and every rank gets the result over all of them. The sums are in
    float64. Raises UserError where there is no target at all.
    """
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64)  # nats, tokens, bytes
    with evaluating(model):
        for batch in batches:
            moved = batch.to(device)
            hidden = model.hidden(moved.inputs, moved.positions, packed=moved.packed).flatten(0, 1)
            losses = token_losses(hidden, model.head_weight, moved.targets.flatten())
            scored = batch.targets[batch.targets != IGNORED].cpu()
            sums[0] += losses.cpu().double().sum()
            sums[1] += len(scored)
            sums[2] += token_bytes[scored].sum()
    if world:
        sums = world.sum(sums.to(world.device)).cpu()
    nats, tokens, text_bytes = sums.tolist()
    if not tokens:
        raise UserError("there is no held-out text to measure on", mend="hold out more, or give more text")
    return HeldOutLoss(nats, round(tokens), round(text_bytes))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off for a while; every module then goes back to its own former mode."""
    former = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in former.items():
            module.training = training
