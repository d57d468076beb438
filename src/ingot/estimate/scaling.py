"""The loss that a published scaling law expects of so many parameters and tokens."""

from __future__ import annotations

import math

# Hoffmann et al. (2022, arXiv:2203.15556), approach 3, as fitted again by Besiroglu et al. (2024, arXiv:2404.10102):
# loss = FLOOR + A / parameters^ALPHA + B / tokens^BETA, in nats a token of their own tokenizer and web text.
FLOOR, A, ALPHA, B, BETA = 1.8172, 482.01, 0.3478, 2085.43, 0.3658
SMALLEST_FITTED = 44_000_000  # parameters of the smallest model that they trained
SOURCE = "Hoffmann et al. 2022, refitted by Besiroglu et al. 2024, arXiv:2404.10102"
# After so many epochs text that is read again has given most of what it will (Muennighoff et al., 2023,
# arXiv:2305.16264, equation 5).
REPEATS = 15.39


def expected_loss(parameters: int, tokens: float, unique: float = math.inf) -> float:
    """Nats a token after training on `tokens`, of which `unique` are different: an orientation, not a promise."""
    return FLOOR + A / parameters**ALPHA + B / _worth(tokens, unique) ** BETA


def best_tokens(parameters: int) -> float:
    """The tokens at which a FLOP spent on more of them gains as much as one spent on more parameters."""
    return (BETA * B / (ALPHA * A) * parameters**ALPHA) ** (1 / BETA)


def _worth(tokens: float, unique: float) -> float:
    """How many new tokens would teach as much."""
    if tokens <= unique:
        return tokens
    repeats = tokens / unique - 1
    return unique * (1 + REPEATS * (1 - math.exp(-repeats / REPEATS)))
