from __future__ import annotations

import math

import pytest

from ingot.estimate.scaling import best_tokens, expected_loss


def test_chinchilla_itself():
    """70B parameters on 1.4T tokens are near the best ratio by this fit as well."""
    assert expected_loss(70 * 10**9, 1.4e12) == pytest.approx(1.97, abs=0.02)
    assert 10 < best_tokens(70 * 10**9) / 70e9 < 40


def test_the_best_tokens_are_best():
    """Of all ways to spend 6 N D FLOPs, none near has a smaller loss."""
    parameters = 10**9
    tokens = best_tokens(parameters)
    for factor in (0.8, 0.9, 1.1, 1.25):
        assert expected_loss(round(parameters * factor), tokens / factor) > expected_loss(parameters, tokens)


def test_repeated_text_is_worth_less_and_never_nothing():
    once, again, new = (expected_loss(10**8, 4e9, unique) for unique in (1e8, 1e9, math.inf))
    assert new < again < once
    assert expected_loss(10**8, 4e9, 1e9) - new < 0.02  # four epochs are nearly as good as new text
    assert expected_loss(10**8, 8e9, 1e8) < once
