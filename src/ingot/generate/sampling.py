"""How one text is continued, as settings. PyTorch is not needed to check them."""

from __future__ import annotations

from pydantic import Field

from ingot.config import Config

LARGEST = 2**63  # below it a whole number fits into what PyTorch takes


class Sampling(Config):
    """How one text is continued. The steps act in this order: penalty, temperature, top-k, top-p."""

    temperature: float = Field(default=1.0, ge=0)
    """the logits are divided by it; 0 (in fact, below 0.0001): always the likeliest token"""
    top_k: int = Field(default=0, ge=0, lt=LARGEST)
    """only the k likeliest tokens; 0: all"""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """only the likeliest tokens that together reach this probability"""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """above 1: tokens of the prompt and of the text so far are less likely"""
    seed: int | None = Field(default=None, ge=0, lt=LARGEST)
    """the same seed gives the same text, whatever else is in the batch; none: another text each time"""
    max_new_tokens: int = Field(default=100, gt=0)
    """tokens after the prompt, at most"""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken; a colder division would overflow, and changes nothing any more."""
        return self.temperature < 1e-4
