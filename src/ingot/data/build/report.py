"""The data report: what went into a token cache, in numbers for `report.json` and in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ingot.data.build.notes import Note
from ingot.data.build.plan import Group, Plan
from ingot.data.cache import VIEWS, Shard
from ingot.data.drops import Drops

SIGHTINGS = 100  # of each token in the text, on average: below this, a model learns little about many of them


def report_of(plan: Plan, groups: Sequence[Group], notes: Sequence[Note]) -> dict[str, Any]:
    """What the notes of `groups` come to, as a whole, by view and by source; every record is accounted for."""
    drops = Drops()
    for note in notes:
        drops.merge(note.dropped)
    sources = [
        _of_source(plan, number, [pair for pair in zip(groups, notes, strict=True) if pair[0].source == number])
        for number in range(len(plan.corpus.sources))
    ]
    tokens = max(1, sum(source["train"]["tokens"] for source in sources))
    whole = {
        **_totals(notes),
        "dropped": drops.placed(part for group in groups for _, part in group.parts),
        "longest": max((source["longest"] for source in sources), key=lambda longest: longest["bytes"]),
        "sources": [source | {"share": source["train"]["tokens"] / tokens} for source in sources],
    }
    dropped = sum(entry["count"] for entry in drops.found.values())
    kept = sum(whole[view]["documents"] for view in VIEWS)
    assert kept + dropped == whole["found"], f"{kept} documents and {dropped} dropped of {whole['found']} found"
    return whole


def _of_source(plan: Plan, number: int, made: Sequence[tuple[Group, Note]]) -> dict[str, Any]:
    source, asked = plan.corpus.sources[number], (plan.corpus.asked or plan.corpus.sources)[number]
    parts = [part for group, _ in made for _, part in group.parts]
    size, name, offset = max((note.longest for _, note in made), key=lambda longest: longest[0], default=(0, "", 0))
    place = next((part.place(offset) for part in parts if part.name == name), "") if size else ""
    return {
        "name": source.name,
        "instead_of": asked.name if asked.name != source.name else "",
        "files": len(dict.fromkeys(part.name for part in parts)),
        "file_bytes": sum(part.size for part in parts),
        "fields": sorted({getattr(part, "field", "") for part in parts} - {""}),
        "limited": any(note.ended for _, note in made),
        "longest": {"bytes": size, "place": place},
        **_totals([note for _, note in made]),
    }


def _totals(notes: Sequence[Note]) -> dict[str, Any]:
    counts: dict[str, Any] = {key: sum(getattr(note, key) for note in notes) for key in ("found", "messages_cut")}
    return counts | {view: _total([note.shards[view] for note in notes]) for view in VIEWS}


def _total(shards: Sequence[Shard]) -> dict[str, float]:
    documents, size, tokens = (sum(getattr(shard, key) for shard in shards) for key in ("documents", "bytes", "tokens"))
    return {"documents": documents, "bytes": size, "tokens": tokens, "bytes_per_token": size / max(1, tokens)}


def count(number: int, what: str) -> str:
    """`1 document`, `2,000 documents`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}{'es' if what.endswith('s') else 's'}"


def size(number: float) -> str:
    """Bytes in the largest unit that leaves a digit before the point: `12 bytes`, `0.9 KB`, `1.5 GB`."""
    if number < 100:
        return count(int(number), "byte")
    for unit in ("KB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:,.1f} {unit}"
    return f"{number / 1000:,.1f} TB"


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report in a few lines, for a log."""
    for source in report["sources"]:
        field = f", text field {' and '.join(map(repr, source['fields']))}" if source["fields"] else ""
        instead = f" (in place of {source['instead_of']})" if source["instead_of"] else ""
        documents = sum(source[view]["documents"] for view in VIEWS)
        read = f"{count(source['files'], 'file')}, {size(source['file_bytes'])}, {count(documents, 'document')}"
        yield f"{source['name']}{instead}: {read}{field}{', up to its limit' if source['limited'] else ''}"
    yield from remarks(report)
    for view in VIEWS:
        total = report[view]
        counted = f"{count(total['documents'], 'document')}, {count(total['tokens'], 'token')}"
        yield f"{view.replace('_', ' ')}: {counted}, {total['bytes_per_token']:.2f} bytes a token"


def remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """What was left out, and where the first of each kind are."""
    for reason, entry in report["dropped"].items():
        first = "the first at" if entry["count"] > 1 else "at"
        yield f"dropped {count(entry['count'], 'record')}: {reason} ({first} {places(entry['examples'])})"
    if report["messages_cut"]:
        yield f"left out {count(report['messages_cut'], 'message')} that no answer follows"


def places(examples: Sequence[str]) -> str:
    """Places in a few words, the lines of one file behind its name: `a.jsonl:3, 7; b.jsonl:1`."""
    lines: dict[str, list[str]] = {}
    for place in examples:
        file, _, line = place.rpartition(":")
        if line.isdecimal():
            lines.setdefault(file, []).append(line)
        else:  # a row of a table, or a byte far inside a file
            lines[place] = []
    return "; ".join(f"{file}:{', '.join(numbers)}" if numbers else file for file, numbers in lines.items())


def warnings(report: Mapping[str, Any], vocabulary: int, asked: int | None) -> Iterator[str]:
    """What to know before training on it. `asked`: the size of the vocabulary that was to be trained, if one was."""
    if asked is None:
        return
    if vocabulary < asked:
        yield f"the text gave a vocabulary of {vocabulary:,} tokens, not {asked:,}: it has no more pairs to merge"
    tokens = report["train"]["tokens"]
    fitting = max(512, tokens // SIGHTINGS)
    if 2 * fitting <= vocabulary:  # a little too large is no harm
        seen = tokens / vocabulary
        yield (
            f"the text is small for a vocabulary of {vocabulary:,}: a token occurs {seen:,.0f} times on average; "
            f"tokenizer.vocabulary={fitting} would suit it better"
        )
