"""Processes of their own: one, or several that torchrun starts together, or that are forks of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RUN = ("-m", "ingot", "train")


def torchrun(*words: str, processes: int = 2, options: tuple[str, ...] = ("--standalone",)) -> list[str]:
    """The command that has `words` done by so many processes."""
    return [sys.executable, "-m", "torch.distributed.run", *options, f"--nproc-per-node={processes}", *words]


def crew(*words: str, sizes: str = "2") -> list[str]:
    """The command that has a script and its words done by so many ranks, which are there sooner than torchrun's."""
    return [sys.executable, str(Path(__file__).with_name("crew.py")), sizes, *words]


def start(command: list[str]) -> subprocess.Popen[str]:
    """A process; what it and all below it say comes on its standard output."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(process: subprocess.Popen[str], status: int = 0, seconds: float = 200) -> str:
    """What it has said, once it has ended as it should."""
    output = process.communicate(timeout=seconds)[0]
    assert process.returncode == status, output
    return output
