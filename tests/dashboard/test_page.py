from __future__ import annotations

import re
from importlib import resources

import pytest

CSS = resources.files("ingot.dashboard").joinpath("page.css").read_text(encoding="utf-8")
PALETTES = [
    dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("palette", PALETTES[:2], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "train", "held-out"])
@pytest.mark.parametrize("ground", ["ground", "raised"])
def test_text_has_enough_contrast(palette: dict[str, str], ink: str, ground: str) -> None:
    low, high = sorted(luminance(palette[name]) for name in (ink, ground))
    assert (high + 0.05) / (low + 0.05) >= 4.5
