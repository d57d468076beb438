"""How an extra of ingot is installed: from where ingot itself came."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit


def pip_install(extra: str) -> str:
    """The command that installs `extra`: from the folder that pip took ingot from where it was one, else by name.

    pip notes that folder beside what it installs (direct_url.json, packaging.python.org/specifications/direct-url).
    """
    try:
        origin = json.loads(metadata.distribution("ingot").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:  # run from its source without having been installed
        origin = {}
    url = urlsplit(origin.get("url", ""))
    folder = Path(unquote(url.path))
    if url.scheme != "file" or not folder.is_dir():
        return f"pip install 'ingot[{extra}]'"
    place = "." if folder.samefile(Path.cwd()) else str(folder)
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}{shlex.quote(f'{place}[{extra}]')}"
