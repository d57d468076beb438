"""An evaluation for people: in the terminal, as Markdown, or as a page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template

from ingot.dashboard.text import DASH, compact, escape
from ingot.errors import UserError
from ingot.evaluate.record import Account, Evaluation, Measure
from ingot.files import write_atomically

SUFFIXES = (".json", ".md", ".html")


@dataclass(frozen=True)
class Sheet:
    """A table with what has to be said about it."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    remarks: list[str] = field(default_factory=list)


def check_output(path: Path) -> None:
    """Raises UserError for a file of a kind that is not written."""
    if path.suffix not in SUFFIXES:
        what = f"an evaluation is not written as {path.suffix or 'a file without a suffix'}"
        raise UserError(what, where=str(path), mend=f"name it as {', '.join(SUFFIXES)}")


def write(found: Evaluation, path: Path) -> None:
    """Write the evaluation as the file's suffix says. Raises UserError as `check_output` does, and for a full disk."""
    check_output(path)
    if path.suffix == ".json":
        write_atomically(path, found.to_json())
    else:
        write_atomically(path, markdown(found) if path.suffix == ".md" else page(found))


def sheets(found: Evaluation) -> list[Sheet]:
    """The tables of an evaluation; figures with their 95% intervals."""
    return [sheet for sheet in (_text(found), _tasks(found), _quality(found), _speed(found)) if sheet.rows]


def markdown(found: Evaluation) -> str:
    """The evaluation as Markdown."""
    lines = [f"# {headline(found)}", "", extent(found), ""]
    for sheet in sheets(found):
        lines += [f"## {sheet.title}", "", _line(sheet.heads), _line(["---", *["---:"] * (len(sheet.heads) - 1)])]
        lines += [*map(_line, sheet.rows), ""]
        lines += [line for remark in sheet.remarks for line in (remark, "")]
    lines += [line for note in found.notes for line in (f"- {note}", "")]
    return "\n".join(lines)


def page(found: Evaluation) -> str:
    """The evaluation as one page, which asks for nothing over the network. All text is escaped."""
    parts = []
    for sheet in sheets(found):
        heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in sheet.heads)
        rows = "\n".join(
            f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
            for row in sheet.rows
        )
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in sheet.remarks)
        table = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        parts.append(f"<section><h2>{escape(sheet.title)}</h2>{table}{remarks}</section>")
    if found.quality and found.quality.samples:
        written = "".join(
            f"<blockquote><b>{escape(prompt)}</b>{escape(text)}</blockquote>" for prompt, text in found.quality.samples
        )
        parts.append(f"<section><h2>Some of what it wrote</h2>{written}</section>")
    values = {"title": escape(headline(found)), "extent": escape(extent(found)), "parts": "\n".join(parts)}
    values["notes"] = "".join(f"<p>{escape(note)}</p>" for note in found.notes)
    text = resources.files("ingot.evaluate").joinpath("page.html").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def headline(found: Evaluation) -> str:
    """What was evaluated."""
    step = "" if found.model.step is None else f", step {found.model.step:,}"
    return f"{found.model.reference}{step}"


def extent(found: Evaluation) -> str:
    """How, where and when."""
    device = found.machine.get("device", "")
    return (
        f"{found.model.parameters:,} parameters, context {found.model.context:,}; {found.precision} on {device}; "
        f"{found.created[:16].replace('T', ' ')}; in brackets: 95% intervals"
    )


def _text(found: Evaluation) -> Sheet:
    texts = found.text
    remarks = [line for one in texts for line in _skipped(one.source, one.documents)]
    if not texts:
        return Sheet("How well it predicts text", [], [])
    rows = [
        ["loss, nats a token", *(_figure(one.loss, 4) for one in texts)],
        ["perplexity", *(_figure(one.perplexity, 2) for one in texts)],
        ["bits per byte", *(_figure(one.bits_per_byte, 4) for one in texts)],
        ["likeliest token right", *(_percent(one.top1) for one in texts)],
        ["among five likeliest", *(_percent(one.top5) for one in texts)],
        ["documents", *(f"{one.documents.read:,}" for one in texts)],
        ["tokens", *(f"{one.tokens:,}" for one in texts)],
    ]
    remarks.append(
        f"Each document from its first token on, in windows of {texts[0].window:,} tokens that do not overlap; "
        "intervals over documents."
    )
    return Sheet("How well it predicts text", ["", *(one.source for one in texts)], rows, remarks)


def _tasks(found: Evaluation) -> Sheet:
    rows, remarks = [], []
    for one in found.tasks:
        for name, measure in one.metrics.items():
            shown = _percent(measure) if name.startswith(("acc", "exact")) else _figure(measure, 3)
            chance = f"{one.chance:.1%}" if one.chance is not None and name.startswith("acc") else DASH
            mark = " *" if name == one.primary else ""
            rows.append([one.task, f"{name}{mark}", shown, chance, f"{one.items.read:,}"])
        remarks += _skipped(one.task, one.items)
        if one.truncated:
            remarks.append(f"{one.task}: {one.truncated:,} items did not fit into the context; their begin was cut")
    if rows:
        remarks.append("* the metric to compare by; intervals over items. Prompts and scores as each task's source.")
    return Sheet("Tasks", ["task", "metric", "score", "guessing", "items"], rows, remarks)


def _quality(found: Evaluation) -> Sheet:
    one = found.quality
    if not one:
        return Sheet("What it writes", [], [])
    kinds = [one.written, *([one.real] if one.real else [])]
    rows = [
        ["tokens of a text", *(_figure(kind.tokens, 0) for kind in kinds)],
        *([f"distinct-{n}", *(f"{kind.distinct[n]:.1%}" for kind in kinds)] for n in ("1", "2", "3")),
        ["repeated 4-grams", *(_percent(kind.repetition) for kind in kinds)],
        ["perplexity to the model", *(_figure(kind.perplexity, 2) for kind in kinds)],
        ["longest copy, tokens", *(_figure(kind.copied, 1) for kind in kinds)],
    ]
    how = f"at temperature {one.sampling.get('temperature')}, {one.sampling.get('max_new_tokens')} tokens at most"
    remarks = [f"{one.written.texts} texts {how}; prompts: {one.prompts}."]
    if one.searched_tokens:
        remarks.append(
            f"Copied is what stands word for word, {one.seed} tokens at least, in the training text, of which "
            f"{one.searched_tokens:,} tokens were searched."
        )
    if one.longest_copy:
        remarks.append(f"The longest: “{' '.join(one.longest_copy.split())[:300]}”")
    heads = ["", "the model's", *(["real ones"] if one.real else [])]
    return Sheet("What it writes", heads, rows, remarks)


def _speed(found: Evaluation) -> Sheet:
    rows = [
        [
            f"{one.batch}",
            f"{one.prompt:,}",
            f"{one.prefill:,.0f}",
            f"{one.decode:,.1f}",
            f"{one.memory_bytes / 2**20:,.0f} MiB",
        ]
        for one in found.speed
    ]
    remarks = []
    if rows and found.peak_memory_bytes:
        remarks.append(f"At most {found.peak_memory_bytes / 2**20:,.0f} MiB were in use during the evaluation.")
    heads = ["texts at once", "prompt tokens", "reading, tokens/s", "writing, tokens/s", "weights and cache"]
    return Sheet("Speed", heads, rows, remarks)


def _figure(measure: Measure, digits: int) -> str:
    if measure.value is None:
        return DASH
    value = f"{measure.value:,.{digits}f}" if measure.value < 1e6 else compact(measure.value)
    if measure.low is None or measure.high is None:
        return value
    low, high = (f"{end:,.{digits}f}" if end < 1e6 else compact(end) for end in (measure.low, measure.high))
    return f"{value} ({low}–{high})"


def _percent(measure: Measure) -> str:
    if measure.value is None:
        return DASH
    if measure.low is None or measure.high is None:
        return f"{measure.value:.1%}"
    return f"{measure.value:.1%} ({measure.low:.1%}–{measure.high:.1%})"


def _skipped(name: str, account: Account) -> list[str]:
    if not account.skipped:
        return []
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in account.skipped.items())
    return [f"{name}: {account.found:,} found, {account.read:,} read; skipped: {reasons}."]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
