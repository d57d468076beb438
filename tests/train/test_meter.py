"""What a run says: a line each in a pipe and in log.txt, and in a terminal no word is cut."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from ingot.track.tracker import Tracker
from ingot.train.meter import Meter

LINE = "demo: qwen3, 2,951,296 parameters, on Intel(R) Xeon(R) Processor @ 2.50GHz (2 threads, fp32), [brackets]"


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_gets_whole_words_and_a_pipe_whole_lines(tmp_path: Path, width: int):
    meter = Meter(tmp_path, Tracker(tmp_path))
    shown: dict[bool, str] = {}
    for terminal in (True, False):
        meter.console = Console(file=io.StringIO(), force_terminal=terminal, color_system=None, width=width)
        meter.say(LINE)
        shown[terminal] = meter.console.file.getvalue()
    assert shown[False] == f"{LINE}\n"
    lines = shown[True].splitlines()
    assert len(lines) > 1 and all(len(line) <= width for line in lines)
    assert shown[True].split() == LINE.split()
    assert [line.partition(" ")[2] for line in (tmp_path / "log.txt").read_text().splitlines()] == [LINE] * 2
