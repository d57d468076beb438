"""Runs in processes of their own: one, or several that torchrun starts together."""

from __future__ import annotations

import os
import subprocess
import sys

RUN = ("-m", "ingot", "train")


def torchrun(*words: str, processes: int = 2, options: tuple[str, ...] = ("--standalone",)) -> list[str]:
    """The command that has `words` done by so many processes."""
    return [sys.executable, "-m", "torch.distributed.run", *options, f"--nproc-per-node={processes}", *words]


def start(command: list[str]) -> subprocess.Popen[str]:
    """A process of one thread; what it and all below it say comes on its standard output."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """What it has said, once it has ended as it should."""
    output = process.communicate(timeout=200)[0]
    assert process.returncode == status, output
    return output
