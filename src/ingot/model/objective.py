"""What the loss compares a target with: the whole vocabulary, or a sample of it. No PyTorch here."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import Field

from ingot.config.config import Choice

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # a target without loss, as in torch.nn.functional.cross_entropy
CHUNK_LOGITS = 8 * 2**20  # logits that exist at once on a CPU: 32 MiB in float32, near the caches
CHUNK_LOGITS_ELSEWHERE = 128 * 2**20  # an accelerator needs more rows to be busy


def chunk_rows(vocabulary: int, device: str) -> int:
    """The rows of logits that exist at once on a `device` of that type, where each has `vocabulary` numbers."""
    return max(1, (CHUNK_LOGITS if device == "cpu" else CHUNK_LOGITS_ELSEWHERE) // vocabulary)


class Objective(Choice):
    """How the loss of a training step is taken; held-out text is always measured by cross-entropy alone.

    One class statement adds another, which may take the loss in its own way by a `total` of its own.
    """

    z_loss: float = Field(default=0.0, ge=0)
    """weight of the squared log of the softmax's normaliser; 1e-4 keeps logits in bounds; shows in the training loss"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of each target that goes evenly to the whole vocabulary; shows in the training loss"""

    def total(self, hidden: Tensor, weight: Tensor, targets: Tensor, candidates: int) -> tuple[Tensor, int]:
        """The loss summed over the targets that are not -100, and how many rows of `weight` it was taken over.

        hidden (N, D), weight (V, D), targets (N,); `candidates` as the method of that name gave it for this step.
        """
        from ingot.model.loss import Terms, sampled_loss, token_loss

        terms = Terms(self.z_loss, self.label_smoothing)
        if candidates:
            return sampled_loss(hidden, weight, targets, candidates, terms)
        return token_loss(hidden, weight, targets, terms=terms), len(weight)

    @abstractmethod
    def candidates(self, done: float) -> int:
        """Tokens drawn to stand for those that no target of a batch names, at `done` (0 to 1) of the run; 0: none."""


class Full(Objective, name="full"):
    """Cross-entropy over the whole vocabulary."""

    def candidates(self, done: float) -> int:
        """None: all tokens take part."""
        return 0


class Sampled(Objective, name="sampled"):
    """Cross-entropy over the batch's own targets and a sample of the rest; over the whole vocabulary at the end.

    Each drawn token stands for as many as were left out (after Jean et al., 2015, arXiv:1412.2007), so a small model
    with a large vocabulary spends its time on its blocks instead of its head.
    """

    drawn: int = Field(default=1024, gt=0)
    """tokens drawn from those that no target of the batch names"""
    until: float = Field(default=0.7, ge=0, le=1)
    """share of the run after which the whole vocabulary takes part"""

    def candidates(self, done: float) -> int:
        """`drawn`, until it is over."""
        return self.drawn if done < self.until else 0
