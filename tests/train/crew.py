"""Ranks as torchrun would start them, but forks of one process that has loaded what they need: most of their time.

`python crew.py SIZES SCRIPT WORDS …` has so many ranks run the script, or, where SIZES is `1,2`, one and then two.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import traceback
from pathlib import Path


def crew(size: int, script: str) -> None:
    """Have `size` ranks run `script`, each in a fork of this process, which ends where one of them fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [fork(rank, size, port, script) for rank in range(size)]
    if any([os.waitpid(rank, 0)[1] for rank in ranks]):
        sys.exit("a rank failed")


def fork(rank: int, size: int, port: int, script: str) -> int:
    """The process that is this one of the ranks."""
    pid = os.fork()
    if pid:
        return pid
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()}, MASTER_ADDR="127.0.0.1")
    status = 1
    try:
        runpy.run_path(script, run_name="__main__")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    import torch.distributed.fsdp  # noqa: F401 (once for all ranks, as what follows)

    import ingot.train.run  # noqa: F401

    _, sizes, *sys.argv = sys.argv
    sys.path[0] = str(Path(sys.argv[0]).parent)
    for size in sizes.split(","):
        crew(int(size), sys.argv[0])
