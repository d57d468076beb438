"""A program that starts a run again and again, each time in a child, and sends it a signal in a chosen phase.

It reads requests from its standard input and answers each, one JSON object a line: `signalled` in conftest.py asks.
Phases are drawn out a little, so that a signal can come in the middle of each.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAUSE = 0.02  # seconds for which a phase is drawn out


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status (minus the signal that ended it), what it said, the phases it went through."""

    status: int
    output: str
    marks: list[str]
    sent_at: int | None  # how many marks there were when the signal was sent

    @property
    def unsaved(self) -> bool:
        """Whether the end came while a save was being written."""
        return self.marks.count("writing") > self.marks.count("writing over")


def marked(owner: Any, name: str, phase: str, tell: Callable[[str], None], pause: float = PAUSE) -> None:
    """Have `owner.name` tell when it begins and when it ends."""
    real = getattr(owner, name)

    def telling(*arguments: Any, **settings: Any) -> Any:
        tell(phase)
        time.sleep(pause)
        result = real(*arguments, **settings)
        tell(f"{phase} over")
        return result

    setattr(owner, name, telling)


def mark_all(pipe: int) -> None:
    """Have every phase of a run tell through the pipe."""
    from ingot.checkpoint import store
    from ingot.train import parts, run, saving, settle
    from ingot.train.loop import Loop

    def tell(phase: str) -> None:
        os.write(pipe, f"{phase}\n".encode())

    marked(parts, "prepare", "preparing", tell, 0.0)
    marked(settle, "compile_kept", "compiling", tell, 0.0)
    marked(Loop, "_step", "stepping", tell, 0.0)
    marked(run, "held_out_loss", "evaluating", tell)
    marked(run.Run, "sample", "sampling", tell)
    marked(run.Run, "_finish", "finishing", tell)
    marked(saving.Saving, "_writers", "copying", tell)
    marked(saving.Saving, "_write", "writing", tell)
    for name in ("recorded", "flush"):  # what the thread does meanwhile takes as long as some steps
        marked(store, name, f"writing, {name}", tell)


def no_compiler(*_: Any) -> str:
    time.sleep(0.2)
    return "no compiler"


def child(request: dict[str, Any], pipe: int) -> None:
    """Train as the command line does, everything that is said in a file."""
    from ingot import cli
    from ingot.train import settle

    said = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(said, number)
    settle.compile_kept = no_compiler
    mark_all(pipe)
    status = cli.run(["train", request["recipe"], *request["overrides"]])
    sys.stdout.flush()
    os._exit(status)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Start a child, send it the signal, and tell how it ended and through which phases it went."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            child(request, writing)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(99)
    os.close(writing)
    marks: list[str] = []
    sent_at: int | None = None
    with os.fdopen(reading) as lines:
        for line in lines:
            marks.append(line.strip())
            if sent_at is None and request["phase"] and marks.count(request["phase"]) == request["nth"]:
                sent_at = len(marks)
                time.sleep(request["delay"])
                os.kill(pid, request["signal"])
    _, status = os.waitpid(pid, 0)
    return {"status": os.waitstatus_to_exitcode(status), "marks": marks, "sent_at": sent_at}


if __name__ == "__main__":
    import ingot.train.run  # noqa: F401 (once for all children)

    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(answer(asked) | {"output": Path(asked["output"]).read_text()}), flush=True)
