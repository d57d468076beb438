"""How much a server takes on. PyTorch is not needed to check it."""

from __future__ import annotations

from pydantic import Field

from ingot.config.config import Config


class Limits(Config):
    """What one server grants its clients; slots and queue are each model's own."""

    slots: int = Field(default=16, gt=0)
    """answers that a model writes at once"""
    queue: int = Field(default=64, ge=0)
    """answers that wait for a slot; whoever comes when it is full is told to come again later"""
    seconds: float = Field(default=300, gt=0)
    """the longest that one request may take, its wait included; an answer ends there as it does at its token limit"""
    tokens: int | None = Field(default=None, gt=0)
    """tokens of one answer at most; none: as many as the context holds"""
    drain: float = Field(default=30, ge=0)
    """seconds that open answers are given to come to their end when the server is told to stop"""
    body: int = Field(default=4 * 2**20, gt=0)
    """bytes of one request at most"""
