"""`SHA256SUMS`: what every file of a folder that travels was when it was written; `sha256sum -c` reads it too."""

from __future__ import annotations

import re
from pathlib import Path

from ingot.checkpoint.manifest import CheckpointDamaged
from ingot.files import sha256

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
LONGEST = 2**22  # bytes of such a file


def write_sums(folder: Path) -> None:
    """Write the sums of all files in `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> bool:
    """Whether there are sums and every file is what they say. Raises CheckpointDamaged with the first that is not."""
    path = folder / SUMS
    if not path.is_file():
        return False
    if path.stat().st_size > LONGEST:
        raise CheckpointDamaged(path, "a list of sums as long as this is none")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise CheckpointDamaged(path, "the sums can't be read") from None
    for line in lines:
        found = _LINE.fullmatch(line)
        if not found or ".." in Path(found[2]).parts or Path(found[2]).is_absolute():
            raise CheckpointDamaged(path, f"no line of sums: {line[:80]!r}")
        file = folder / found[2]
        if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            raise CheckpointDamaged(file, "this file of the model is missing")
        if sha256(file) != found[1]:
            raise CheckpointDamaged(file, "the content is not what was saved (its SHA-256 differs)")
    return True
