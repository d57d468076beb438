"""Run folders for the tests of this room, and a dashboard over some."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import write_run as write

from ingot.dashboard.server import Dashboard


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the run `demo`, or another; a finished run of 300 steps unless told otherwise."""

    def write_one(*told: Any, name: str = "demo", **more: Any) -> Path:
        return write(tmp_path / "runs" / name, *told, **more)

    return write_one


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[[], Dashboard]]:
    """Opens a dashboard over the runs written, in a thread."""
    opened = []

    @contextmanager
    def running(server: Dashboard) -> Iterator[Dashboard]:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        with server.closing():
            yield server
            server.shutdown()
            thread.join(10)

    def start() -> Dashboard:
        context = running(Dashboard(tmp_path / "runs", "127.0.0.1", 0))
        opened.append(context)
        return context.__enter__()

    yield start
    for context in opened:
        context.__exit__(None, None, None)
