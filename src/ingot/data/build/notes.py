"""What a group of parts came to, as a small file that says that its shards are written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ingot.data.build.limits import Quota
from ingot.data.build.plan import Group
from ingot.data.cache import VIEWS, Shard, View, mask_file
from ingot.files import new_file


@dataclass
class Note:
    """What a group came to."""

    shards: dict[View, Shard]
    found: int = 0  # records: documents and dropped ones
    dropped: dict[str, dict[str, Any]] = field(default_factory=dict)  # as Drops counts them
    longest: tuple[int, str, int] = (0, "", 0)  # document: bytes of text, name of its part, offset there
    messages_cut: int = 0  # off the ends of conversations
    quota: Quota = field(default_factory=Quota)  # within which the group was made
    ended: bool = False  # whether the quota ended it

    @classmethod
    def find(cls, group: Group, folder: Path) -> Note | None:
        """The note on `group` in `folder`; None where there is none, or a damaged one."""
        try:
            value = json.loads(_file(group, folder).read_bytes())
            shards = {view: Shard(**value["shards"][view]) for view in VIEWS}
            special = {"shards": shards, "longest": tuple(value["longest"]), "quota": Quota(*value["quota"])}
            return cls(**value | special)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, group: Group, folder: Path, *, flushed: bool) -> None:
        """Put the note into `folder`, where all that it speaks of is."""
        with new_file(_file(group, folder), flushed=flushed) as file:
            file.write(json.dumps(asdict(self) | {"quota": self.quota.to_list()}).encode())

    def files(self, width: int) -> Iterator[tuple[str, int]]:
        """Name and size of each file of the group, with `width` bytes a token."""
        for shard in self.shards.values():
            if shard.tokens:
                yield shard.file, width * shard.tokens
                yield starts_file(shard.file), 8 * shard.documents
            if shard.mask:
                yield mask_file(shard.file), shard.tokens

    def left_of(self, quota: Quota) -> Quota:
        """What the group's documents leave of `quota`."""
        shards = self.shards.values()
        documents, size, tokens = (sum(getattr(one, key) for one in shards) for key in ("documents", "bytes", "tokens"))
        return quota.after(documents, size, tokens)

    def holds(self, quota: Quota) -> bool:
        """Whether the group, made again within `quota`, would come to the same."""
        return self.quota == quota or not (self.ended or self.left_of(quota).spent)


def starts_file(shard: str) -> str:
    """The name of the list of document starts beside the shard of that name."""
    return str(Path(shard).with_suffix(".starts"))


def noted(folder: Path) -> set[str]:
    """The names of the groups that have a note in `folder`."""
    try:
        return {name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json")}
    except FileNotFoundError:
        return set()


def sound(groups: Sequence[Group], places: Sequence[Path], width: int) -> list[Note]:
    """The notes on `groups` in the first of `places`, or none of them where one is missing or speaks of cut files.

    What was written shortly before the machine itself went down may be cut, as only a finished cache is flushed to the
    disk. Such a note is removed, and its group is then made again. A token has `width` bytes.
    """
    found = []
    for group in groups:
        note = Note.find(group, places[0])
        if note and all(any(_size(place / name) == size for place in places) for name, size in note.files(width)):
            found.append(note)
        else:
            _file(group, places[0]).unlink(missing_ok=True)
    return found if len(found) == len(groups) else []


def _file(group: Group, folder: Path) -> Path:
    return folder / f"{group.name}.json"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return -1
