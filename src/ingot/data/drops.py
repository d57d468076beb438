"""What became of the records that gave no document: counted by reason, with the places of the first ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ingot.data.formats import Dropped, Part, place
from ingot.errors import UserError

EXAMPLES = 5  # places that are kept for each reason


class Drops:
    """Records that gave no document: how many for each reason, and where the first of them are."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}

    def add(self, part: Part, dropped: Dropped) -> None:
        """Count one record."""
        self.merge({dropped.reason: {"count": 1, "examples": [[str(part.path), dropped.offset]]}})

    def merge(self, other: dict[str, dict[str, Any]]) -> None:
        """Count what was found elsewhere, behind what was found so far."""
        for reason, entry in other.items():
            own = self.found.setdefault(reason, {"count": 0, "examples": []})
            own["count"] += entry["count"]
            own["examples"] = (own["examples"] + entry["examples"])[:EXAMPLES]

    def placed(self) -> dict[str, dict[str, Any]]:
        """What was found, its places as `file:line`."""
        return {
            reason: entry | {"examples": [place(Path(path), offset) for path, offset in entry["examples"]]}
            for reason, entry in sorted(self.found.items())
        }


def nothing_left(where: str, drops: Drops, held_out: int) -> UserError:
    """The error for sources without a document to train on, with what became of their records."""
    fates = [
        f"{entry['count']:,} dropped: {reason} ({entry['examples'][0]})" for reason, entry in drops.placed().items()
    ]
    if held_out:
        fates.append(f"{held_out:,} held out")
    mend = "give it text"
    if held_out and not drops.found:
        mend = (
            'data.held_out.share=0 trains on all; a separator such as "\\n\\n" makes documents of a file\'s paragraphs'
        )
    return UserError(
        f"no document is left to train on ({', '.join(fates) or 'there is no record'})", where=where, mend=mend
    )
