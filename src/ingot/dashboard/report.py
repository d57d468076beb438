"""The report of one run: report.html, one file that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from string import Template

from ingot.dashboard import sections
from ingot.dashboard.charts import chart_data
from ingot.dashboard.corpus import corpus
from ingot.dashboard.run import RunRecord
from ingot.dashboard.text import embed_json, escape
from ingot.files import write_atomically


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into `run_folder` from what the run wrote there, and return its path.

    The page is one file: it asks for nothing over the network. Raises UserError when there is no such folder.
    """
    path = run_folder / "report.html"
    write_atomically(path, render(RunRecord.read(run_folder)))
    return path


def render(run: RunRecord) -> str:
    """The whole page. All that comes from the run is escaped, and the page's policy runs no script but its own."""
    style, script = _asset("page.css"), _asset("chart.js") + _asset("page.js")
    commands = "\n".join(
        f"<div><dt>{escape(purpose)}</dt><dd><code>{escape(command)}</code></dd></div>"
        for purpose, command in sections.commands(run)
    )
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        "style": style,
        "script": script,
        "data": embed_json(chart_data(run)),
        "name": escape(run.name),
        "verdict": escape(sections.verdict(run)),
        "headline": sections.headline(run),
        "figures": sections.figures(run),
        "extent": escape(sections.extent(run)),
        "measurements": sections.measurements(run),
        "health": sections.health(run),
        "samples": sections.samples(run),
        "corpus": corpus(run),
        "recipe": sections.recipe(run),
        "recipe_text": escape(run.recipe_text),
        "machine": sections.machine(run),
        "parameters": sections.parameters(run),
        "checkpoints": sections.checkpoints(run),
        "commands": commands,
        "unreadable": _unreadable(run.unreadable),
    }
    return Template(_asset("page.html")).substitute(parts)


def _unreadable(lines: int) -> str:
    if not lines:
        return ""
    return f"{lines:,} {'line' if lines == 1 else 'lines'} of the run's records could not be read and is left out here."


def _asset(name: str) -> str:
    return resources.files("ingot.dashboard").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a content security policy calls `text`: only an element of exactly this content is run or applied."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
