"""The page of many runs: which there are, their curves together, and what they differ in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from ingot.dashboard import kept, sections
from ingot.dashboard.markup import NONE_YET, Row, table
from ingot.dashboard.run import RunRecord, flatten
from ingot.dashboard.series import number
from ingot.dashboard.text import DASH, compact, escape, lasting, plain, setting

COLOURS, DASHES = 8, 4  # by which the page tells runs apart
COLUMNS = 12  # runs whose evaluations, recipes and samples are set side by side, at most
HEADS = (
    "run",
    "state",
    "step",
    "tokens",
    "time",
    "training loss",
    "held-out loss",
    "bits per byte",
    "parameters",
    "events",
)
OWN = ("name", "runs", "cache", "train.settled")  # keys of a recipe that differ without making a difference


def parts(every: Sequence[RunRecord], chosen: Sequence[RunRecord], studies: Mapping[str, str]) -> dict[str, str]:
    """HTML by the name of its place in the page; `studies`: addresses of sweeps by their names."""
    together = chosen[:COLUMNS]
    return {
        "headline": _headline(every, chosen),
        "runs": _runs(every, chosen),
        "studies": _studies(studies),
        "evaluations": kept.evaluations(together) + _left_out(chosen),
        "differences": differences(together) + _left_out(chosen),
        "written": _written(together) + _left_out(chosen),
    }


def _headline(every: Sequence[RunRecord], chosen: Sequence[RunRecord]) -> str:
    going = sum(run.state == "under way" for run in every)
    shown = "all shown" if len(chosen) == len(every) else f"{len(chosen):,} shown"
    return f"{len(every):,} {'run' if len(every) == 1 else 'runs'}, {going:,} under way or killed; {shown}."


def _runs(every: Sequence[RunRecord], chosen: Sequence[RunRecord]) -> str:
    ticked = {run.name for run in chosen}
    rows = [_run(place, run, run.name in ticked) for place, run in enumerate(every)]
    return table(HEADS, rows) if rows else NONE_YET


def _run(place: int, run: RunRecord, ticked: bool) -> Row:
    name, look = escape(run.name), f"c{place % COLOURS} d{place // COLOURS % DASHES}"
    box = f'<input type="checkbox" name="run" value="{name}" data-place="{place}" aria-label="Show {name}"'
    box += " checked>" if ticked else ">"
    link = f'<a href="/run/{quote(run.name)}">{name}</a>'
    measured = run.measured
    events = len(run.of("health")) + len(run.of("rollback"))
    planned = sections.planned_steps(run)
    of_all = f" of {planned:,.0f}" if math.isfinite(planned) and planned != run.latest("step") else ""
    step = run.latest("step")
    cells = [
        run.state,
        f"{step:,.0f}{of_all}" if math.isfinite(step) else DASH,
        compact(run.latest("tokens")),
        lasting(run.latest("seconds")),
        plain(run.journal.last_loss),
        plain(number(measured.get("loss"))),
        plain(number(measured.get("bits_per_byte"))),
        compact(run.parameters),
        f"{events:,}" if events else DASH,
    ]
    return f'<span class="name">{box}<span class="swatch {look}"></span>{link}</span>', cells


def _studies(studies: Mapping[str, str]) -> str:
    if not studies:
        return ""
    links = " · ".join(f'<a href="{escape(address)}">{escape(name)}</a>' for name, address in studies.items())
    return f'<h2 id="studies">Sweeps</h2>\n<p>{links}</p>'


def _left_out(chosen: Sequence[RunRecord]) -> str:
    left = len(chosen) - COLUMNS
    return (
        f'<p class="quiet">The first {COLUMNS} of the runs shown; {left:,} more are left out here.</p>'
        if left > 0
        else ""
    )


def differences(runs: Sequence[RunRecord]) -> str:
    """The keys in which the recipes of some runs differ, a column for each run."""
    known = [run for run in runs if run.recipe]
    if len(known) < 2:
        return '<p class="quiet">Choose two runs or more.</p>'
    settings = [dict(flatten(run.recipe)) for run in known]
    keys = list(dict.fromkeys(key for one in settings for key in one if key not in OWN))
    rows = []
    for key in keys:
        values = [setting(one[key]) if key in one else DASH for one in settings]
        if len(set(values)) > 1:
            rows.append((f"<code>{escape(key)}</code>", values))
    if not rows:
        return '<p class="quiet">They are the same but for names and places.</p>'
    return table(["", *(run.name for run in known)], rows, "words")


def _written(runs: Sequence[RunRecord]) -> str:
    """What each run wrote last, the same prompts side by side."""
    found = [(run, sections.last_samples(run)) for run in runs if run.samples]
    if not found:
        return '<p class="quiet">Nothing yet.</p>'
    written = [f"<div><h3>{escape(run.name)}</h3>\n{quotes}</div>" for run, quotes in found]
    return f'<div class="written">{"".join(written)}</div>'
