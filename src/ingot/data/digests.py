"""What the input files contain, as SHA-256, remembered so that a file is read once and not once a run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingot.data.formats import reach
from ingot.files import sha256, write_atomically

FRESH = 2 * 10**9  # ns: a file changed so lately could change again without its time telling


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

    def _digest(self, path: Path) -> str:
        stat = reach(path, path.stat)
        stamp, key = [stat.st_size, stat.st_mtime_ns], str(path.resolve())
        if (known := self._known.get(key)) and known[:2] == stamp:
            return str(known[2])
        digest = reach(path, lambda: sha256(path))
        if time.time_ns() - stat.st_mtime_ns > FRESH:
            self._known[key] = [*stamp, digest]
        return digest
