"""Worker processes, copied from a process of one thread and begun anew beside any other."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import psutil
import pytest

PARENT = """
import os, signal, sys, threading, time
from ingot.data.workers import forkable, start

def work(pipe, sentence):
    pipe.send((sentence, os.getpid(), os.environ["RAYON_NUM_THREADS"]))
    if pipe.recv() == "end":
        sys.exit(3)
    time.sleep(60)

if __name__ == "__main__":
    if {threads}:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    print(forkable(), flush=True)
    import parent  # by which name a new process finds the work
    crew = [start(parent.work, sentence) for sentence in ("first", "second")]
    said = [worker.pipe.recv() for worker in crew]
    assert [sentence for sentence, _, _ in said] == ["first", "second"] and {{said[0][2], said[1][2]}} == {{"1"}}
    for _, number, _ in said:
        os.kill(number, signal.SIGTERM)  # the parent's to answer, not the worker's
    crew[0].pipe.send("end")
    assert crew[0].status() == 3
    crew[1].pipe.send("go on")
    extra = start(parent.work, "third")
    extra.kill()
    assert extra.status() == -signal.SIGKILL
    print(said[1][1], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("threads", [False, True])
def test_a_worker_works_ignores_signals_and_ends_with_its_parent(tmp_path, threads: bool):
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT.format(threads=threads)))
    parent = subprocess.Popen(
        [sys.executable, "parent.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "RAYON_NUM_THREADS": "2"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    assert parent.stdout.readline() == f"{sys.platform == 'linux' and not threads}\n"
    worker = psutil.Process(int(parent.stdout.readline()))
    assert worker.is_running()
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([worker], timeout=30)[1]
