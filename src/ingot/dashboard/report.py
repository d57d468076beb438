"""The page of one run: as report.html a file that needs nothing beside it, in the dashboard one that follows it."""

from __future__ import annotations

from pathlib import Path

from ingot.dashboard import kept, sections
from ingot.dashboard.corpus import corpus
from ingot.dashboard.curves import chart_data
from ingot.dashboard.page import page
from ingot.dashboard.run import RunRecord
from ingot.dashboard.text import escape
from ingot.files import write_atomically


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into `run_folder` from what the run wrote there, and return its path.

    The page is one file: it asks for nothing over the network. Raises UserError when there is no such folder.
    """
    path = run_folder / "report.html"
    write_atomically(path, render(RunRecord.read(run_folder)))
    return path


def render(run: RunRecord, live: str = "") -> str:
    """The whole page. All that comes from the run is escaped, and the page's policy runs no script but its own."""
    eyebrow = 'ingot · <a href="/">all runs</a>' if live else "ingot · report of a run"
    fixed = {"eyebrow": eyebrow, "name": escape(run.name)}
    inside = fixed | parts(run, live=bool(live))
    return page("run.html", inside, chart_data([run]), title=run.name, description=_description(run), live=live)


def parts(run: RunRecord, *, live: bool = False) -> dict[str, str]:
    """What changes while a run goes on: HTML by the name of its place in the page."""
    return {
        "headline": sections.headline(run),
        "figures": sections.figures(run),
        "extent": escape(sections.extent(run)),
        "measurements": sections.measurements(run),
        "health": sections.health(run),
        "plan": kept.plan(run),
        "samples": sections.samples(run),
        "evaluations": kept.evaluations([run]),
        "corpus": corpus(run),
        "commands": sections.commands(run),
        "checkpoints": kept.checkpoints(run, live=live),
        "facts": sections.facts(run),
        "recipe_text": escape(run.recipe_text),
        "unreadable": _unreadable(run.unreadable),
    }


def _description(run: RunRecord) -> str:
    return f"{run.name}: {sections.verdict(run)}"


def _unreadable(lines: int) -> str:
    if not lines:
        return ""
    return f"{lines:,} {'line' if lines == 1 else 'lines'} of the run's records could not be read and is left out here."
