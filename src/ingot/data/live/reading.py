"""One slot's documents of a set of sources, epoch after epoch; where it stands is three numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from ingot.data.build.making import BATCH_RECORDS, text_bytes
from ingot.data.build.spelling import Speller
from ingot.data.document import Conversation, Document, Dropped, Part, Record
from ingot.data.drops import Drops
from ingot.data.hub import Hub
from ingot.data.live.plan import LivePlan
from ingot.data.order import drawn, permute
from ingot.data.source import Source
from ingot.errors import UserError
from ingot.hub import Unreachable

BATCH_BYTES = 2**18  # of text that is encoded at once
MANY = 4  # parts for each slot: from so many on, they are dealt out whole; else each slot takes some records of each

Say = Callable[[str], None]


class Reading:
    """The training documents of one slot of `slots`: its own parts in an order drawn anew each epoch, or its own
    records of all parts where these are few. Every document is read once in an epoch, by one of the slots.

    A source of the hub that stays away longer than its patience is replaced by the next of its fallbacks, and the set
    begins a new epoch then. `say` is told.
    """

    def __init__(self, plan: LivePlan, number: int, slot: int, slots: int, speller: Speller, say: Say):
        self._corpus, self._speller, self._say = plan.corpus, speller, say
        self._number, self._slot, self._slots = number, slot, slots
        self._seed = drawn(plan.seed, number, 0)
        self._cleans = bool(plan.corpus.clean.identity())
        self._sources = {place: plan.corpus.sources[place] for place in plan.sets[number]}
        self._instead: dict[int, Source] = {}
        self._epoch = self._place = self._record = 0  # the parts done in this epoch, the records done of the next one
        self._given = 0  # documents of this epoch
        self._found, self._held, self._drops = 0, 0, Drops()
        self._records: Iterator[Record] | None = None  # of the part that is being read
        self._list_parts()

    def batch(self) -> list[Document | Conversation]:
        """The next documents, at least one. Raises UserError where there is none, and for what can't be read."""
        while True:
            if kept := self._some():
                return kept

    def state(self) -> dict[str, Any]:
        """What `load_state` needs, as plain values."""
        return {
            **{key: getattr(self, f"_{key}") for key in ("epoch", "place", "record", "given", "found", "held")},
            "dropped": self._drops.found,
            "instead": {str(place): source.to_dict() for place, source in self._instead.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Stand where another one of the same plan and slot stood."""
        for key in ("epoch", "place", "record", "given", "found", "held"):
            setattr(self, f"_{key}", state[key])
        self._drops.found = state["dropped"]
        self._instead = {int(place): Source.model_validate(source) for place, source in state["instead"].items()}
        self._sources |= self._instead
        self._records = None
        self._list_parts()

    def _list_parts(self) -> None:
        listed: list[tuple[int, int, Part]] = []  # source, number in the source, part
        for place, source in self._sources.items():
            listed += [(place, number, part) for number, part in enumerate(source.parts())]
        self._parts: Sequence[tuple[int, int, Part]] = listed
        self._dealt = len(listed) >= MANY * self._slots
        self._own = len(range(self._slot, len(listed), self._slots)) if self._dealt else len(listed)

    def _some(self) -> list[Document | Conversation]:
        """The next documents of one part; none where it has no more."""
        index = self._slot + self._place * self._slots if self._dealt else self._place
        where = int(permute(index, len(self._parts), drawn(self._seed, 0, self._epoch)))
        place, number, part = self._parts[where]
        if self._records is None:
            self._records = islice(self._sources[place].documents(part), self._record, None)
        kept: list[Document | Conversation] = []
        size = 0
        try:
            for found in self._records:
                if (record := self._taken(number, part, found)) is not None:
                    kept.append(record)
                    size += text_bytes(record)
                    if size >= BATCH_BYTES or len(kept) >= BATCH_RECORDS:
                        return kept
        except UserError as error:
            self._records = None
            if kept:  # they go first, and the error is met again
                return kept
            if not isinstance(error, Unreachable):
                raise
            self._replace(place, error)
            return kept
        self._finish_part()
        return kept

    def _taken(self, number: int, part: Part, found: Record) -> Document | Conversation | None:
        """What becomes of the next record of a part; None: it is dropped, held out, or another slot's."""
        index = self._record
        self._record += 1
        if not self._dealt and (number + index) % self._slots != self._slot:
            return None
        record = self._speller.fitting(self._corpus.clean.record(found) if self._cleans else found)
        if isinstance(record, Dropped):
            self._drops.add(part, record)
            self._found += record.records
            return None
        self._found += 1
        if self._corpus.held_out.holds(number, index):
            self._held += 1
            return None
        self._given += 1
        return record

    def _finish_part(self) -> None:
        self._records = None
        self._place, self._record = self._place + 1, 0
        if self._place < self._own:
            return
        if not self._given:
            raise self._nothing_left()
        self._epoch, self._place, self._given = self._epoch + 1, 0, 0

    def _nothing_left(self) -> UserError:
        fates = [f"{entry['count']:,} dropped: {reason}" for reason, entry in self._drops.found.items()]
        fates += [f"{self._held:,} held out"] if self._held else []
        return UserError(
            f"no document is left to train on ({', '.join(fates) or 'there are too few records'})",
            where=", ".join(source.name for source in self._sources.values()),
            mend="give it more text, or prepare a token cache: data.live=false",
        )

    def _replace(self, place: int, error: Unreachable) -> None:
        """Put a fallback in the place of a source. Raises `error` where there is none that can be had."""
        asked = (self._corpus.asked or self._corpus.sources)[place]
        for fallback in asked.fallback if isinstance(asked, Hub) else []:
            try:
                settled = fallback.resolve(self._say)
                settled.parts()
            except UserError as other:
                self._say(str(other))
                continue
            if settled.identity() != self._sources[place].identity():
                self._say(f"{error}; {settled.name} takes its place from here on")
                self._sources[place] = self._instead[place] = settled
                self._epoch, self._place, self._record, self._given = self._epoch + 1, 0, 0, 0
                self._list_parts()
                return
        raise error
