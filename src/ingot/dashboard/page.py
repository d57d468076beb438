"""One page as one file: its style, its script and its data lie inside it, and its policy allows no others."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from ingot.dashboard.text import embed_json, escape

SCRIPTS = ("chart.js", "page.js", "live.js")
LIVE = '<p id="live" role="status"></p>'


def page(
    template: str,
    parts: Mapping[str, str],
    data: Mapping[str, Any],
    *,
    title: str,
    description: str = "",
    live: str = "",
) -> str:
    """The page of `template`, with `parts`, which are HTML, put in, and `data` for its script.

    `live`: the address that the page asks for what has changed; without it the page asks for nothing at all.
    """
    style, script = asset("page.css"), "".join(map(asset, SCRIPTS))
    policy = f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    policy += "; connect-src 'self'; form-action 'self'; base-uri 'none'" if live else ""
    inside = {"curves": asset("curves.html"), "live": LIVE if live else ""}
    whole = {
        "policy": policy,
        "style": style,
        "script": script,
        "title": escape(title),
        "description": escape(description),
        "data": embed_json({**data, "live": live}),
        "body": Template(asset(template)).substitute({**inside, **parts}),
    }
    return Template(asset("page.html")).substitute(whole)


def asset(name: str) -> str:
    """A file that lies beside this one."""
    return resources.files("ingot.dashboard").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a content security policy calls `text`: only an element of exactly this content is run or applied."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
