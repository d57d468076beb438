"""How one text is continued, as settings. PyTorch is not needed to check them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ingot.config.config import Config

LARGEST = 2**63  # below it a whole number fits into what PyTorch takes
MOST_ALTERNATIVES = 20  # tokens whose log-probabilities are told beside the chosen one's


class Sampling(Config):
    """How one text is continued. The steps act in this order: repetition, frequency and presence penalty, bias,
    temperature, top-k, top-p, min-p."""

    temperature: float = Field(default=1.0, ge=0)
    """the logits are divided by it; 0 (in fact, below 0.0001): always the likeliest token"""
    top_k: int = Field(default=0, ge=0, lt=LARGEST)
    """only the k likeliest tokens; 0: all"""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """only the likeliest tokens that together reach this probability"""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """only tokens that are at least this many times as probable as the likeliest one; 0: all"""
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100)
    """above 1: tokens of the prompt and of the text so far are less likely"""
    frequency_penalty: float = Field(default=0.0, ge=-100, le=100)
    """taken off a token's logit for each time that the text so far, without the prompt, holds it"""
    presence_penalty: float = Field(default=0.0, ge=-100, le=100)
    """taken off a token's logit once if the text so far, without the prompt, holds it"""
    seed: int | None = Field(default=None, ge=0, lt=LARGEST)
    """the same seed gives the same text, whatever else is in the batch; none: another text each time"""
    max_new_tokens: int = Field(default=100, gt=0)
    """tokens after the prompt, at most"""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """the text ends before the first of these strings, wherever tokens begin and end in it"""
    logit_bias: dict[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100, le=100)]] = {}
    """added to the logits of these token ids; -100 bans a token"""
    logprobs: int | None = Field(default=None, ge=0, le=MOST_ALTERNATIVES)
    """tell the log-probability of each token and of the k likeliest in its place; none: of no token"""
    lookup: int = Field(default=0, ge=0, le=64)
    """tokens guessed at once from what followed the same words earlier in the text, and checked together: the same
    text, sooner where it repeats itself; 0: none"""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken; a colder division would overflow, and changes nothing any more."""
        return self.temperature < 1e-4

    @property
    def adjusts(self) -> bool:
        """Whether penalties or a bias change the logits."""
        penalised = self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0
        return penalised or bool(self.logit_bias)

    @property
    def cuts(self) -> bool:
        """Whether unlikely tokens are left out."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0
