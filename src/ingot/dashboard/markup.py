"""The few forms of HTML that the page is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ingot.dashboard.follow import Record
from ingot.dashboard.series import number
from ingot.dashboard.text import DASH, compact, escape, setting

NONE_YET = '<p class="quiet">None yet.</p>'

Row = tuple[str, Sequence[str]]
"""a row's name, which is HTML, and its cells, which are text unless they are Html"""


class Html(str):
    """Text that is HTML already."""


def entries(pairs: Iterable[tuple[str, Any]]) -> str:
    """The entries of a list of names and values, both text."""
    return "\n".join(f"<div><dt>{escape(key)}</dt><dd>{escape(setting(value))}</dd></div>" for key, value in pairs)


def table(heads: Sequence[str], rows: Iterable[Row], look: str = "") -> str:
    """A table; `heads` are text, `look` is a class of the style sheet.

    Each cell knows its column's name: where the window is narrow, rows become cards and the names stand in them.
    """
    names = [escape(head) for head in heads]
    top = "".join(f'<th scope="col">{name}</th>' for name in names)
    lines = "\n".join(_row(names, head, cells) for head, cells in rows)
    body = f"<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}\n</tbody>"
    return f'<div class="wide-table">\n<table class="{look}">\n{body}\n</table>\n</div>'


def _row(names: Sequence[str], head: str, cells: Sequence[str]) -> str:
    inside = "".join(
        f'<td data-label="{name}">{cell if isinstance(cell, Html) else escape(cell)}</td>'
        for name, cell in zip(names[1:], cells, strict=False)  # a row of remarks has none
    )
    return f'<tr><th scope="row" data-label="{names[0]}">{head}</th>{inside}</tr>'


def mapping(record: Record, key: str) -> Record:
    """The mapping at `key`; an empty one where there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[Record]:
    """The mappings in a list; none where there is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def count(value: Any) -> str:
    """A number with its thousands apart."""
    figure = number(value)
    return f"{figure:,.0f}" if math.isfinite(figure) else DASH


def tokens(value: Any) -> str | None:
    """A number of tokens; None where it is no number."""
    figure = number(value)
    return f"{compact(figure)} tokens" if math.isfinite(figure) else None
