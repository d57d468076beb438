"""Compiles cpp/read.cpp for this processor, once, and keeps what comes of it in the user's cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ingot.distributed import environment

FOLDER = Path(__file__).with_name("cpp")
COMPILERS = ("c++", "g++", "clang++")
OPTIONS = ("-std=c++17", "-O2", "-march=native", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC")
ON_INTEL = ("-mprefer-vector-width=512",)
PATIENCE = 300  # seconds for a compiler on a busy machine


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled reader; none, and one line on standard error, where there is no compiler that makes it."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    problem = "there is no C++ compiler"
    if compiler and sys.byteorder == "little":
        try:
            return load(compiled(compiler))
        except (OSError, subprocess.SubprocessError) as error:
            lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            problem = next((line for line in lines if "error" in line), lines[0] if lines else type(error).__name__)
    print(f"ingot: texts are written by PyTorch, which is slower: {problem}", file=sys.stderr)
    return None


def load(path: Path) -> ctypes.CDLL:
    """The reader in a file."""
    found = ctypes.CDLL(str(path))
    found.read.restype = None
    found.read.argtypes = [ctypes.c_void_p] * 3
    return found


def compiled(compiler: str, *further: str) -> Path:
    """The library's file, made where it is not there yet; processes that make it at once put the same in place.

    `further`: more options for the compiler. Raises what subprocess raises, and OSError where nothing can be written.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=PATIENCE).stdout
    options = [*OPTIONS, *(ON_INTEL if platform.machine().lower() in ("x86_64", "amd64") else ()), *further]
    sources = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())]
    key = hashlib.sha256("\n".join([version, *options, _processor(), *sources]).encode())
    path = _folder() / f"read-{key.hexdigest()[:16]}.so"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as draft:
        made = Path(draft, path.name)
        command = [compiler, *options, "-fopenmp", str(FOLDER / "read.cpp"), "-o", str(made)]
        try:
            _run(command)
        except subprocess.CalledProcessError:
            command.remove("-fopenmp")  # one thread is better than none
            _run(command)
        made.replace(path)
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)


def _folder() -> Path:
    """Where it is kept; among the temporary files where there is no home to write to."""
    home = environment("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    for folder in (Path(home, "ingot"), Path(tempfile.gettempdir(), f"ingot-{platform.node()}")):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                continue  # what another user put there would run as one's own
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise OSError("no folder can be written to")


def _processor() -> str:
    """What tells processors apart as far as a compiler cares: a folder may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
