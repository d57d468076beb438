"""Text for people: escaped, and figures in the lengths in which one says them."""

from __future__ import annotations

import html
import json
import math
import re
from typing import Any

import orjson

from ingot.rhythm import in_words

DASH = "–"  # where there is no figure
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, and halves of surrogate pairs


def escape(value: Any) -> str:
    """`value` as text that is safe in HTML, in an attribute too, and that encodes as UTF-8."""
    return html.escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def embed_json(value: Any) -> str:
    """`value` as JSON that is safe inside a `<script>` element: no tag, comment, entity or line can begin in it."""
    text = to_json(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def to_json(value: Any) -> bytes:
    """JSON of plain values and numpy arrays; a number that is not finite becomes null."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # half a surrogate pair in a text, which orjson does not write
        return json.dumps(value, default=lambda array: orjson.loads(to_json(array))).encode()


def plain(value: float, digits: int = 3) -> str:
    """A figure with `digits` decimals, as `1.170`; thousands are compact."""
    if not math.isfinite(value):
        return DASH
    return compact(value) if abs(value) >= 1000 else f"{value:.{digits}f}"


def compact(value: float) -> str:
    """A figure to three digits with its thousands as a letter: `12.3k`, `2.88M`; from 10^15 on with a power."""
    if not math.isfinite(value):
        return DASH
    if abs(value) >= 1e15:
        return f"{value:.3g}".replace("e+", "e")
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def setting(value: Any) -> str:
    """A recipe's or a machine's value as one reads it: thousands apart, lists as lists, yes and no."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list):
        return " · ".join(map(setting, value)) or "none"
    return "none" if value in ({}, "") else str(value)


def duration(seconds: float) -> tuple[str, str]:
    """A time as (figure, unit)."""
    figure, _, unit = in_words(seconds).partition(" ") if math.isfinite(seconds) else (DASH, "", "minutes")
    return figure, unit


def lasting(seconds: float) -> str:
    """A time as a figure and its unit, such as `3.4 minutes`; a dash where there is none."""
    return in_words(seconds) if math.isfinite(seconds) else DASH
