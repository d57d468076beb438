"""What a run keeps beside its records: checkpoints, evaluations, and its plan; each as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ingot.dashboard.follow import Record
from ingot.dashboard.markup import NONE_YET, Html, Row, count, mapping, mappings, table
from ingot.dashboard.run import RunRecord
from ingot.dashboard.sections import planned_steps
from ingot.dashboard.series import number
from ingot.dashboard.text import DASH, compact, escape, lasting, plain

LOSSES = {"validation": "held-out loss in training", "held_out": "on all held-out text"}


def checkpoints(run: RunRecord, *, live: bool) -> str:
    """The checkpoints that are there, as a table; `live`: each can be asked for its sums."""
    manifests = run.checkpoints
    losses = [{key: number(mapping(manifest, "losses").get(key)) for key in LOSSES} for manifest in manifests]
    known = [key for key in LOSSES if any(math.isfinite(one[key]) for one in losses)]
    best = min((one["validation"] for one in losses if math.isfinite(one["validation"])), default=math.nan)
    rows: list[Row] = []
    for manifest, loss in zip(manifests, losses, strict=True):
        marks = ["best"] * (loss["validation"] == best) + ["latest"] * (manifest is manifests[-1])
        marks += [str(tag) for tag in manifest.get("tags") or []]
        sizes = [number(file.get("bytes")) for file in mapping(manifest, "files").values() if isinstance(file, dict)]
        name = f"<code>{escape(run.folder.name)}@{number(manifest['step']):.0f}</code>"
        name += f' <span class="quiet">{escape(", ".join(marks))}</span>' if marks else ""
        size = f"{sum(sizes) / 1e6:,.1f} MB" if sizes else DASH
        figures = [plain(loss[key]) for key in known]
        rows.append((name, [compact(number(manifest.get("tokens"))), *figures, size, _files(manifest, live)]))
    heads = ["checkpoint", "tokens", *(LOSSES[key] for key in known), "size", "files"]
    return table(heads, rows) if rows else NONE_YET


def _files(manifest: Record, live: bool) -> Html:
    state = str(manifest["state"])
    told = f'<span class="{"bad" if state.startswith("damaged") else "quiet"}">{escape(state)}</span>'
    if live:
        about = f'data-verify="{escape(manifest["folder"])}" aria-label="Verify {escape(manifest["folder"])}"'
        told += f' <button type="button" class="small" {about}>Verify</button>'
    return Html(f'<span class="files">{told}</span>')


def plan(run: RunRecord) -> str:
    """What was planned, beside what it was or is by now, as a table; nothing where there was no plan."""
    outlook = _outlook(run)
    seconds, steps = run.latest("seconds"), run.latest("step")
    memory = run.journal.most("system", "gpu_memory_gb")
    memory = memory if memory > 0 else run.journal.most("system", "memory_gb")
    planned = number(outlook.get("memory"))
    rows = [
        ("steps", count(planned_steps(run)), count(steps)),
        ("time of training", lasting(number(outlook.get("seconds"))), lasting(seconds)),
        ("memory of a process, most", _gigabytes(planned / 1e9), _gigabytes(memory)),
    ]
    known = [(escape(name), [was, made]) for name, was, made in rows if was != DASH]
    if not known:
        return ""
    by_now = "measured" if run.state == "finished" else "so far"
    return f"<h3>Planned and measured</h3>\n{table(['', 'planned', by_now], known)}"


def _outlook(run: RunRecord) -> Record:
    """What the run foretold of itself; nothing where that was of a shorter run, which was complete and is extended."""
    extended = [step for how, step in run.gone_on if how == "extended"]
    return next((one for one in run.of("outlook")[::-1] if number(one.get("step")) > max(extended, default=-1.0)), {})


def _gigabytes(value: float) -> str:
    return f"{value:,.2f} GB" if math.isfinite(value) and value > 0 else DASH


def evaluations(runs: Sequence[RunRecord]) -> str:
    """The last evaluation of each step of each run, side by side: a column each, a row for each figure."""
    shown = [(run, one) for run in runs for one in _last_of_each_step(run.evaluations)]
    if not shown:
        return '<p class="quiet">None yet: <code>ingot evaluate MODEL</code> makes one.</p>'
    figures = [dict(_figures(one)) for _, one in shown]
    names = list(dict.fromkeys(name for column in figures for name in column))
    heads = [""] + [_headed(run, one, alone=len(runs) == 1) for run, one in shown]
    rows = [(escape(name), [column.get(name, DASH) for column in figures]) for name in names]
    return table(heads, rows)


def _last_of_each_step(evaluations: Sequence[Record]) -> list[Record]:
    return list({str(mapping(one, "model").get("step")): one for one in evaluations}.values())


def _headed(run: RunRecord, one: Record, *, alone: bool) -> str:
    step = number(mapping(one, "model").get("step"))
    at = f"step {step:,.0f}" if math.isfinite(step) else str(one.get("created", ""))[:10]
    return at if alone else f"{run.name}, {at}"


def _figures(one: Record) -> Iterator[tuple[str, str]]:
    """The figures of an evaluation by their names."""
    for text in mappings(one.get("text")):
        source = str(text.get("source", ""))
        for key, name, digits in (
            ("loss", "loss", 4),
            ("perplexity", "perplexity", 1),
            ("bits_per_byte", "bits per byte", 4),
        ):
            yield f"{name} · {source}", _measure(mapping(text, key), digits)
        yield f"top-1 accuracy · {source}", _measure(mapping(text, "top1"), 3)
    for task in mappings(one.get("tasks")):
        primary = str(task.get("primary", ""))
        chance = number(task.get("chance"))
        guess = f" (chance {chance:.2f})" if math.isfinite(chance) else ""
        yield f"{task.get('task')} · {primary}{guess}", _measure(mapping(mapping(task, "metrics"), primary), 3)
    written = mapping(mapping(one, "quality"), "written")
    if written:
        yield "repetition of what it writes", _measure(mapping(written, "repetition"), 3)
        yield "longest copy, tokens", _measure(mapping(written, "copied"), 1)
    for speed in mappings(one.get("speed")):
        yield f"tokens/s written, batch {speed.get('batch')}", compact(number(speed.get("decode")))


def _measure(measure: Record, digits: int) -> str:
    value, low, high = (number(measure.get(key)) for key in ("value", "low", "high"))
    if not math.isfinite(value):
        return DASH
    between = f" ({low:.{digits}f} to {high:.{digits}f})" if math.isfinite(low) and math.isfinite(high) else ""
    return f"{value:.{digits}f}{between}"
