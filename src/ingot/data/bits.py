"""Hashes whose every bit depends on every bit of what went in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each bit of a hash spread over all of them; 0 stays 0 (the finish of SplitMix64, Steele et al., 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
