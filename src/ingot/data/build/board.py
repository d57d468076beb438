"""What is done of a cache and what is missing, as the disk tells: tasks that any process may claim.

First an encoder is chosen, then the groups are made; where duplicates are left out, that is decided and each group is
copied without them; last the shards are joined to a cache. A task is there once all that it rests on is.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from ingot.data.build.claims import Task, at_work
from ingot.data.build.joining import join
from ingot.data.build.keeping import DECIDED, decide, keep
from ingot.data.build.limits import Quota
from ingot.data.build.making import make
from ingot.data.build.notes import Note, noted
from ingot.data.build.plan import Group, Plan
from ingot.data.build.sample import sample
from ingot.data.build.spelling import Speller
from ingot.data.cache import TokenCache
from ingot.data.duplicates import fates
from ingot.errors import UserError
from ingot.files import write_atomically
from ingot.tokenizer.encoder import Choice, Library, fastest

AHEAD = 4  # groups of a limited source that are made before it is known how many it takes
COMPARED_FROM = 8 * 2**20  # bytes of files: below this, comparing encoders costs more than the fastest one saves
ENCODER_BYTES, ENCODER_PARTS = 2**21, 8  # of text of each source, on which encoders are compared

PHASES = {  # the names of tasks, by how they begin
    "encoder": "comparing encoders",
    "make": "encoding",
    "decide": "looking for duplicates",
    "keep": "leaving out duplicates",
    "join": "joining",
}


@dataclass(frozen=True)
class Standing:
    """How far the work on a cache is."""

    what: str  # is being done; nothing: it is finished
    done: int  # bytes of files that are encoded
    total: int  # and of all
    claimed: int  # tasks that processes are doing now


class Board:
    """The state of the work on one cache, read from the disk at each look."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._made, self._kept, self._decided = (plan.work / name for name in ("made", "kept", "duplicates"))
        self._encoder = encoder_file(plan.folder)
        self._final: dict[str, Note] = {}  # notes of limited sources that will not change any more
        self._own: list[list[Group]] = [[] for _ in plan.corpus.sources]
        for group in plan.groups:
            self._own[group.source].append(group)

    def missing(self) -> list[Task]:
        """What can be done now; empty where the cache is finished. Raises UserError where it was given up."""
        plan = self._plan
        if TokenCache.exists(plan.folder):
            return []
        if not plan.work.is_dir() and not TokenCache.exists(plan.folder):
            what = "another process gave up this token cache, and says why"
            raise UserError(what, where=str(plan.folder), mend="mend that and run the same command again")
        if not self._encoder.exists():
            return [Task("encoder", self._choose_encoder)]
        taken, tasks = self._making()
        if tasks:
            return tasks
        if plan.corpus.clean.duplicates == "none":
            return [Task("join", partial(join, plan, taken, self._made))]
        if not (self._decided / DECIDED).exists():
            return [Task("decide", partial(decide, plan, taken, self._made, self._decided))]
        done = noted(self._kept)
        keeping = [(place, group) for place, group in enumerate(taken) if group.name not in done]
        tasks = [Task(f"keep-{group.name}", partial(self._keep, place, group)) for place, group in keeping]
        return tasks or [Task("join", partial(join, plan, taken, self._kept))]

    def standing(self) -> Standing:
        """How the work stands now, as far as is known: a limited source may need more groups than it seems."""
        made, tasks = noted(self._made), self.missing()
        done = sum(group.size for group in self._plan.groups if group.name in made)
        asked = {task.name for task in self._making()[1]}
        left = sum(group.size for group in self._plan.groups if _making(group) in asked)
        what = next((words for name, words in PHASES.items() if tasks and tasks[0].name.startswith(name)), "")
        return Standing(what, done, done + left, at_work(tasks, self._plan.work))

    def _making(self) -> tuple[list[Group], list[Task]]:
        """The groups that the cache is made of, as far as they are made, and the tasks that make the others."""
        made = noted(self._made)
        taken: list[Group] = []
        tasks: list[Task] = []
        free: list[Group] = []
        for source, groups in zip(self._plan.corpus.sources, self._own, strict=True):
            whole = Quota.of(source)
            if whole.limited:
                own, needed = self._limited(groups, whole, made)
                taken += own
                tasks += needed
            else:
                taken += groups
                free += [group for group in groups if group.name not in made]
        free.sort(key=lambda group: -group.size)  # a large one that is begun last is waited for by all
        return taken, tasks + [self._make_task(group, Quota()) for group in free]

    def _limited(self, groups: list[Group], whole: Quota, made: set[str]) -> tuple[list[Group], list[Task]]:
        """The groups of a limited source that count, and those to make; none once the limit, or the end, is reached.

        A group counts with what the ones before it leave. Some are made ahead of that, and again if it cuts them.
        """
        left = whole
        for place, group in enumerate(groups):
            if left.spent:
                return groups[:place], []
            note = None
            if group.name in made:
                note = self._final.get(group.name) or Note.find(group, self._made)
            if note is None or not note.holds(left):
                rest = groups[place + 1 : place + 1 + _ahead(whole, left, place)]
                ahead = [self._make_task(other, whole) for other in rest if other.name not in made]
                return groups[:place], [self._make_task(group, left), *ahead]
            self._final[group.name] = note
            if note.ended:
                return groups[: place + 1], []
            left = note.left_of(left)
        return groups, []

    def _make_task(self, group: Group, quota: Quota) -> Task:
        return Task(_making(group), lambda: make(self._plan, group, quota, self._speller, self._made), quota)

    def _keep(self, place: int, group: Group) -> None:
        keep(group, fates(self._decided, place), self._made, self._kept, self._plan.tokenizer.dtype)
        for file in self._made.glob(f"*{group.name}.*"):  # copied: the disk need not hold it twice
            if file.suffix != ".json":
                file.unlink(missing_ok=True)

    def _choose_encoder(self) -> None:
        plan, chosen = self._plan, Choice(Library(self._plan.tokenizer), "")
        if plan.size >= COMPARED_FROM:
            chosen = fastest(plan.tokenizer, list(sample(plan.corpus, ENCODER_BYTES, ENCODER_PARTS)))
        self._speller = Speller(plan.tokenizer, chosen.encoder)  # built and warm
        write_atomically(self._encoder, chosen.note)

    @cached_property
    def _speller(self) -> Speller:
        return Speller.of(self._plan.tokenizer, json.loads(self._encoder.read_bytes())["name"])


def encoder_file(folder: Path) -> Path:
    """Where the choice of the encoder for the cache in `folder` is kept: beside it, as it is no part of it."""
    return folder.parent / "encoders" / f"{folder.name}.json"


def _making(group: Group) -> str:
    return f"make-{group.name}"


def _ahead(whole: Quota, left: Quota, done: int) -> int:
    """How many groups beyond the next one seem to be needed, judging by those that are `done`."""
    pairs = zip(whole.to_list(), left.to_list(), strict=True)
    needed = [
        math.ceil(rest * done / (limit - rest)) - 1
        for limit, rest in pairs
        if limit is not None and rest is not None and limit > rest
    ]
    return min(needed, default=AHEAD)
