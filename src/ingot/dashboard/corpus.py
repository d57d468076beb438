"""What a run learned from, as its last start recorded it: the data report and how the rows were chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ingot.dashboard.follow import Record
from ingot.dashboard.markup import Row, count, mapping, mappings, table, tokens
from ingot.dashboard.run import RunRecord
from ingot.dashboard.series import number
from ingot.dashboard.text import DASH, compact, escape, plain
from ingot.data.build.report import size

SOURCES = 40  # that are shown one by one
KINDS = 40  # of reasons for leaving something out


def corpus(run: RunRecord) -> str:
    """The text's extent, its sources, and what was left out of it; as HTML."""
    report = mapping(run.start, "data")
    said = [
        f"<p>{escape(line)}</p>" for line in [*_extent(run, report), *map(_sentence, _words(run.start.get("rows")))]
    ]
    if not said:
        return '<p class="quiet">The run has not said yet.</p>'
    return "\n".join([*said, *_sources(report), *_dropped(report)])


def _extent(run: RunRecord, report: Record) -> Iterator[str]:
    train, held_out = mapping(report, "train"), mapping(report, "held_out")
    if train:
        ratio = plain(number(train.get("bytes_per_token")), 2)
        text = f"{_documents(train)}, {_size(train.get('bytes'))} of text"
        yield f"{text}, {tokens(train.get('tokens'))} of {ratio} bytes on average."
        yield f"Held out: {_documents(held_out)}, {tokens(held_out.get('tokens'))}."
    seen, there = run.latest("tokens"), number(run.start.get("train_tokens"))
    if seen > 0 and there > 0:
        yield f"Trained on: {tokens(seen)}, {seen / there:.3g} × the text."


def _sources(report: Record) -> Iterator[str]:
    """The table of the sources."""
    sources = mappings(report.get("sources"))
    rows: list[Row] = []
    for source in sources[:SOURCES]:
        train, held_out = mapping(source, "train"), mapping(source, "held_out")
        share = number(source.get("share"))
        cells = [
            count(source.get("files")),
            count(number(train.get("documents")) + number(held_out.get("documents"))),
            _size(train.get("bytes")),
            compact(number(train.get("tokens"))),
            f"{share:.1%}" if math.isfinite(share) else DASH,
        ]
        remarks = "".join(f' <span class="quiet">{escape(remark)}</span>' for remark in _remarks(source))
        rows.append((escape(source.get("name", "")) + remarks, cells))
    if len(sources) > SOURCES:
        rows.append((f'<span class="quiet">and {len(sources) - SOURCES:,} more</span>', []))
    if rows:
        yield table(["source", "files", "documents", "text", "tokens", "share of tokens"], rows)


def _remarks(source: Record) -> Iterator[str]:
    """What is to be known of one source."""
    if source.get("instead_of"):
        yield f"in place of {source['instead_of']}"
    if fields := _words(source.get("fields")):
        yield f"text field {' and '.join(map(repr, fields))}"
    if source.get("limited") is True:
        yield "up to its limit"


def _dropped(report: Record) -> Iterator[str]:
    """The table of what was left out, and why."""
    dropped = mapping(report, "dropped")
    reasons = sorted(dropped, key=lambda reason: -number(mapping(dropped, reason).get("count")))[:KINDS]
    rows: list[Row] = []
    for reason in reasons:
        entry = mapping(dropped, reason)
        places = f' <span class="quiet">{escape(", ".join(_words(entry.get("examples"))))}</span>'
        rows.append((escape(reason) + places, [count(entry.get("count"))]))
    if number(report.get("messages_cut")) > 0:
        rows.append(("messages that no answer follows", [count(report["messages_cut"])]))
    if rows:
        yield f"<p>Left out, of {count(report.get('found'))} records found:</p>"
        yield table(["reason", "records"], rows)


def _words(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}."


def _documents(view: Record) -> str:
    documents = view.get("documents")
    return f"{count(documents)} {'document' if documents == 1 else 'documents'}"


def _size(value: Any) -> str:
    figure = number(value)
    return size(figure) if math.isfinite(figure) else DASH
