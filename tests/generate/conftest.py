"""What holds for all of the generator's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def repeatable(one_thread: None, same_random_numbers: None) -> None:
    """On one thread, from the same random numbers."""
