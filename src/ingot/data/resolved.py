"""What the outside world said of a source when it was asked, kept: the same command does not ask it twice.

A source on a hub is pinned to a revision, or replaced by the fallback that could be reached. That is settled once, in
`resolved/<name>.json` below the cache folder, so that every process and every later run reads the same text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ingot.data.build.claims import alone
from ingot.data.build.plan import fingerprint
from ingot.data.source import FileSource, Source
from ingot.errors import UserError
from ingot.files import make_folder, write_atomically
from ingot.hub import Unreachable

HOW = {*Source.model_fields, "patience"}  # what may change without asking again: it is not about what there is
WAY_OUT = "text of your own needs no hub: 'data.sources=[{kind: local, path: FOLDER}]'"


def resolve(sources: Sequence[Source], folder: Path, say: Callable[[str], None]) -> tuple[Source, ...]:
    """Each of `sources` as it was settled before, or is settled now; processes that ask at once ask once.

    Raises UserError, before anything is asked of a network, for files that are not on this machine.
    """
    on_disk = [source for source in sources if isinstance(source, FileSource)]
    if len(on_disk) < len(sources):
        for source in on_disk:
            source.parts()
    return tuple(_resolve(source, folder / "resolved", say) for source in sources)


def settled(sources: Sequence[Source], folder: Path) -> tuple[Source, ...] | None:
    """As `resolve`, but nothing is asked of a network: None where that would have to be. Raises UserError."""
    if all(isinstance(source, FileSource) or _kept(source, folder / "resolved")[1].exists() for source in sources):
        return resolve(sources, folder, lambda line: None)
    return None


def _kept(source: Source, folder: Path) -> tuple[dict[str, object], Path]:
    """What is asked of a source, and the file that keeps the answer."""
    asked = {key: value for key, value in source.to_dict().items() if key not in HOW}
    return asked, folder / f"{fingerprint(asked)}.json"


def _resolve(source: Source, folder: Path, say: Callable[[str], None]) -> Source:
    asked, file = _kept(source, folder)
    if not file.exists():
        make_folder(folder)
        with alone(folder / ".lock"):
            if not file.exists():
                found = _asked(source, say)
                if found == source:  # there was nothing to settle
                    return source
                write_atomically(file, json.dumps({"asked": asked, "resolved": found.to_dict()}, indent=1) + "\n")
    found = _read(file)
    return found.model_copy(update={key: getattr(source, key) for key in HOW & type(found).model_fields.keys()})


def _asked(source: Source, say: Callable[[str], None]) -> Source:
    try:
        return source.resolve(say)
    except Unreachable as error:
        mend = "; ".join(filter(None, (error.mend, WAY_OUT)))
        raise Unreachable(error.what, where=error.where, mend=mend) from error


def _read(file: Path) -> Source:
    try:
        return Source.model_validate(json.loads(file.read_bytes())["resolved"])
    except (OSError, ValueError, KeyError, TypeError):  # pydantic's error is a ValueError
        raise UserError("this file is damaged", where=str(file), mend="remove it and run the command again") from None
