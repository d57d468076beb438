"""What became of the records that gave no document: counted by reason, with the places of the first ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ingot.data.document import Dropped, Part
from ingot.errors import UserError

EXAMPLES = 5  # places that are kept for each reason


class Drops:
    """Records that gave no document: how many for each reason, and where the first of them are."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}

    def add(self, part: Part, dropped: Dropped) -> None:
        """Count one record, or those that were lost together."""
        self.merge({dropped.reason: {"count": dropped.records, "examples": [[part.name, dropped.offset]]}})

    def merge(self, other: dict[str, dict[str, Any]]) -> None:
        """Count what was found elsewhere, behind what was found so far."""
        for reason, entry in other.items():
            own = self.found.setdefault(reason, {"count": 0, "examples": []})
            own["count"] += entry["count"]
            own["examples"] = (own["examples"] + entry["examples"])[:EXAMPLES]

    def placed(self, parts: Iterable[Part]) -> dict[str, dict[str, Any]]:
        """What was found in `parts`, its places as `file:line`, each once: a line can hold many records."""
        named = {part.name: part for part in parts}  # a place counts within whatever bears the name, not in one part

        def places(entry: Mapping[str, Any]) -> list[str]:
            return list(dict.fromkeys(named[name].place(offset) for name, offset in entry["examples"]))

        return {reason: entry | {"examples": places(entry)} for reason, entry in sorted(self.found.items())}


def nothing_left(where: str, dropped: Mapping[str, dict[str, Any]], held_out: int) -> UserError:
    """The error for sources without a document to train on, with what became of their records."""
    fates = [f"{entry['count']:,} dropped: {reason} ({entry['examples'][0]})" for reason, entry in dropped.items()]
    if held_out:
        fates.append(f"{held_out:,} held out")
    mend = "give it text"
    if held_out:
        cut = r'data.sources.0.separator="\n\n" makes documents of the paragraphs of its files'
        mend = f"data.held_out.share=0 trains on all; {cut}"
    return UserError(
        f"no document is left to train on ({', '.join(fates) or 'there is no record'})", where=where, mend=mend
    )
