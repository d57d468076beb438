"""The page of a sweep: what each of its runs came to, the law through their sizes, and what to choose."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ingot.dashboard.follow import Record
from ingot.dashboard.markup import Row, mapping, table
from ingot.dashboard.page import page
from ingot.dashboard.series import number
from ingot.dashboard.text import DASH, compact, escape, lasting, setting
from ingot.errors import UserError
from ingot.files import write_atomically

RESULTS = {"final_loss": "final loss", "best_loss": "best loss", "bits_per_byte": "bits per byte"}


@dataclass(frozen=True)
class Study:
    """A sweep as its sweep.json tells it; whatever is missing or odd there is left out."""

    folder: Path
    told: Record

    @classmethod
    def read(cls, path: Path) -> Study:
        """Of a file sweep.json. Raises UserError where it can't be read."""
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            told = None
        if not isinstance(told, dict):
            raise UserError("this is no sweep", where=str(path), mend="the command that began it writes it anew")
        return cls(path.parent, told)

    @property
    def name(self) -> str:
        """Its folder's."""
        return self.folder.name

    @property
    def runs(self) -> list[Record]:
        """What is known of each run."""
        return [run for run in self.told.get("runs") or [] if isinstance(run, dict)]


def write_study(path: Path) -> Path:
    """Write report.html beside the sweep.json at `path`, and return where."""
    report = path.with_name("report.html")
    write_atomically(report, render(Study.read(path)))
    return report


def render(study: Study, live: str = "") -> str:
    """The whole page, as a file that needs nothing beside it or, `live`, one that follows the sweep."""
    eyebrow = 'ingot · <a href="/">all runs</a> · sweep' if live else "ingot · sweep"
    inside = {"eyebrow": eyebrow, "name": escape(study.name)} | parts(study, live=bool(live))
    return page("study.html", inside, chart(study), title=study.name, live=live)


def parts(study: Study, *, live: bool = True) -> dict[str, str]:
    """HTML by the name of its place in the page."""
    states = [str(run.get("state")) for run in study.runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    advice = [str(line) for line in study.told.get("advice") or []] or ["Nothing yet."]
    law = mapping(study.told, "law")
    said = [law.get("text"), law.get("source") and f"Form: {law['source']}."] if law else [study.told.get("no_law")]
    return {
        "headline": escape(f"{study.told.get('recipe', '')}: {len(states):,} runs; {counts}."),
        "advice": "\n".join(f"<p>{escape(line)}</p>" for line in advice),
        "runs": _runs(study, live=live),
        "law": "\n".join(f"<p>{escape(line)}</p>" for line in said if line),
    }


def _runs(study: Study, *, live: bool) -> str:
    keys = list(mapping(study.told, "keys"))
    best = min((number(run.get("best_loss")) for run in study.runs), default=math.nan)
    rows = [_run(study, run, keys, best, live=live) for run in study.runs]
    heads = ["run", *keys, "state", "parameters", "tokens", "FLOPs", "time", *RESULTS.values()]
    return table(heads, rows)


def _run(study: Study, run: Record, keys: Sequence[str], best: float, *, live: bool) -> Row:
    name, values = str(run.get("name", "")), mapping(run, "values")
    head = f'<a href="/run/{quote(f"{study.name}/{name}")}">{escape(name)}</a>' if live else escape(name)
    if number(run.get("best_loss")) == best:
        head += ' <span class="quiet">best</span>'
    time = lasting(number(run.get("seconds")))
    figures = [compact(number(run.get(key))) for key in ("parameters", "tokens", "flops")]
    losses = [f"{value:.4f}" if math.isfinite(value := number(run.get(key))) else DASH for key in RESULTS]
    state = ": ".join(str(part) for part in (run.get("state"), run.get("why")) if part)
    return head, [*(setting(values.get(key)) for key in keys), state, *figures, time, *losses]


def chart(study: Study) -> dict[str, Any]:
    """The runs by their size and the law through them, as the page draws them."""
    law = mapping(study.told, "law")
    points = (
        _points(law.get("points"))
        if law
        else _points([[run.get("parameters"), run.get("best_loss")] for run in study.runs])
    )
    sizes, losses = ([point[place] for point in points] for place in (0, 1))
    series: list[Record] = []
    if len(set(sizes)) > 1:
        series.append({"line": 0, "label": "runs", "look": "points", "parameters": sizes, "value": losses})
    if curve := _points(law.get("curve"), columns=4):
        names = ("parameters", "value", "low", "high")
        columns = {name: [point[place] for point in curve] for place, name in enumerate(names)}
        series.insert(0, {"line": 0, "label": "law", "look": "fit", **columns})
    looks = {"width": "whole", "figures": "plain", "scale": "logarithmic", "axis": "parameters", "lines": [0]}
    panel = {"title": "Lowest held-out loss", "unit": "nats per token, by parameters; both axes logarithmic", **looks}
    fixed = {"logX": True, "logY": True}
    run = {"name": study.name, "version": str(hash(json.dumps(series))), "sampled": False, "series": series}
    return {"axes": [], "panels": [panel | {"fixed": fixed}], "together": False, "runs": [run]}


def _points(value: Any, columns: int = 2) -> list[list[float]]:
    """Rows of so many finite numbers, ascending."""
    if not isinstance(value, list):
        return []
    rows = [[number(one) for one in row] for row in value if isinstance(row, list) and len(row) == columns]
    return sorted(row for row in rows if all(map(math.isfinite, row)))
