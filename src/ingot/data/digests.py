"""What the input files contain, as XXH3 digests, remembered so that a file is read once and not once a run.

They name this machine's own caches and guard against nobody, so 128 bits of a fast hash are as good as a slow one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xxhash import xxh3_128

from ingot.data.formats import reach
from ingot.files import write_atomically

FRESH = 2 * 10**9  # ns: a file changed so lately could change again without its time telling
READ_BYTES = 2**20
HASH = "xxh3:"  # leads each digest: what was remembered of another hash is not known


class Digests:
    """Digests of files, kept in one JSON file by path, size and time of change."""

    def __init__(self, file: Path):
        self._file = file
        try:
            self._known: dict[str, list[int | str]] = json.loads(file.read_bytes())
        except (OSError, ValueError):  # absent or damaged: it is only a memory
            self._known = {}

    def of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The digest of each path. Raises UserError for a file that can't be read."""
        unique = list(dict.fromkeys(paths))
        before = dict(self._known)
        with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter's lock
            found = dict(zip(unique, pool.map(self._digest, unique), strict=True))
        if self._known != before:
            write_atomically(self._file, json.dumps(self._known))
        return found

    def know(self, paths: Iterable[Path]) -> bool:
        """Whether the digest of each path is remembered, so that none needs to be read. Raises as `of` does."""
        return all(self._remembered(path)[2] for path in paths)

    def _digest(self, path: Path) -> str:
        key, stamp, digest = self._remembered(path)
        if digest:
            return digest
        digest = HASH + reach(path, lambda: _hash(path))
        if time.time_ns() - stamp[1] > FRESH:
            self._known[key] = [*stamp, digest]
        return digest

    def _remembered(self, path: Path) -> tuple[str, list[int], str]:
        """The path's key, its size and time of change, and the digest that it had with these; empty: none is known."""
        stat = reach(path, path.stat)
        stamp, key = [stat.st_size, stat.st_mtime_ns], str(path.resolve())
        if (known := self._known.get(key)) and known[:2] == stamp and str(known[2]).startswith(HASH):
            return key, stamp, str(known[2])
        return key, stamp, ""


def _hash(path: Path) -> str:
    found = xxh3_128()
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_BYTES):
            found.update(block)
    return found.hexdigest()
