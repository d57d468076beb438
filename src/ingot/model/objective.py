"""What the loss compares a target with: the whole vocabulary, or a sample of it. No PyTorch here."""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field

from ingot.config import Choice


class Objective(Choice):
    """How the loss of a training step is taken. One class statement adds another."""

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
