"""The few forms of HTML that the page is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ingot.dashboard.follow import Record
from ingot.dashboard.series import number
from ingot.dashboard.text import DASH, compact, escape, setting


def entries(pairs: Iterable[tuple[str, Any]]) -> str:
    """The entries of a list of names and values, both text."""
    return "\n".join(f"<div><dt>{escape(key)}</dt><dd>{escape(setting(value))}</dd></div>" for key, value in pairs)


def row(head: str, cells: list[str]) -> str:
    """A row of a table; `head` is HTML, `cells` are text."""
    return f'<tr><th scope="row">{head}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def table(heads: list[str], rows: Iterable[str]) -> str:
    """A table that scrolls by itself where it is too wide; `heads` are text."""
    names = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    lines = "\n".join(rows)
    body = f"<thead><tr>{names}</tr></thead>\n<tbody>\n{lines}\n</tbody>"
    return f'<div class="wide-table">\n<table>\n{body}\n</table>\n</div>'


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
