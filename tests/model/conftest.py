"""What holds for all of the model's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def repeatable(same_random_numbers: None) -> None:
    """From the same random numbers."""
