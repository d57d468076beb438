"""The file of metrics: whole lines only, and after a resume the same as without the kill."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.errors import UserError
from ingot.track.tracker import METRICS, JsonLines, Tracker


def record(step: int) -> dict[str, object]:
    return {"kind": "train", "step": step, "loss": 1 / (step + 1), "note": "é\n\u2028"}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_records_come_back_equal_and_at_once(tmp_path: Path):
    log = JsonLines(tmp_path / "deep" / "log.jsonl")
    for step in range(3):
        log.log(record(step))
        assert lines(log.path)[-1] == record(step)  # before the file is closed
    assert len(lines(log.path)) == 3


def test_numbers_that_json_lacks_become_null_and_lone_surrogates_survive(tmp_path: Path):
    log = JsonLines(tmp_path / "log.jsonl")
    log.log({"loss": math.nan, "inside": {"most": [math.inf, 1.5]}, "text": "\udc80"})
    assert lines(log.path) == [{"loss": None, "inside": {"most": [None, 1.5]}, "text": "\udc80"}]


@given(cut=st.integers(0, 400), step=st.integers(0, 6))
def test_after_a_kill_at_any_byte_the_file_equals_an_unbroken_one(tmp_path_factory, cut: int, step: int):
    folder = tmp_path_factory.mktemp("run")
    whole, broken = Tracker(folder / "whole"), Tracker(folder / "broken")
    for tracker in (whole, broken):
        tracker.log({"kind": "start"})
        for number in range(1, 7):
            tracker.log(record(number))
    path = folder / "broken" / METRICS
    path.write_bytes(path.read_bytes()[:cut])
    reached = max((line.get("step", 0) for line in lines(path)), default=0)
    resumed = Tracker(folder / "broken")
    resumed.truncate_after(min(step, reached))
    if cut <= len(json.dumps({"kind": "start"})):
        resumed.log({"kind": "start"})
    for number in range(min(step, reached) + 1, 7):
        resumed.log(record(number))
    assert path.read_bytes() == (folder / "whole" / METRICS).read_bytes()


def test_opening_drops_a_half_written_last_line_only(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    JsonLines(path).log({"step": 3})
    assert lines(path) == [{"step": 1}, {"step": 2}, {"step": 3}]


def test_a_step_that_was_left_out_belongs_to_its_step_and_a_rollback_to_what_comes_next(tmp_path: Path):
    log = JsonLines(tmp_path / "log.jsonl")
    for kind, step in (("train", 1), ("rollback", 1), ("health", 2), ("train", 3)):
        log.log({"kind": kind, "step": step})
    for step, left in ((2, 3), (1, 1)):
        log.truncate_after(step)
        assert len(lines(log.path)) == left


@pytest.mark.parametrize("rubbish", [b"\x00\x00\n", b"[1]\n", b'{"step": "two"}\n', b"\xff\n"])
def test_truncation_stops_at_what_is_no_record(tmp_path: Path, rubbish: bytes):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n' + rubbish + b'{"step": 2}\n')
    JsonLines(path).truncate_after(9)
    assert lines(path) == [{"step": 1}]


def test_a_tracker_that_is_not_active_writes_nowhere(tmp_path: Path):
    tracker = Tracker(tmp_path / "run")
    for step in (1, 2):
        tracker.log(record(step))
    tracker.truncate_after(1)
    tracker.close()
    assert lines(tmp_path / "run" / METRICS) == [record(1)]
    silent = Tracker(tmp_path / "silent", active=False)
    silent.log(record(1))
    assert not (tmp_path / "silent").exists()


def test_a_full_disk_is_one_line_and_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = JsonLines(tmp_path / "log.jsonl")
    log.log(record(1))

    class Full:
        """The open file on a disk that takes five more bytes."""

        def __init__(self, file):
            self.file, self.left = file, 5

        def write(self, data: bytes) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            written, self.left = self.file.write(data[: self.left]), 0
            return written

        def __getattr__(self, name: str):
            return getattr(self.file, name)

    monkeypatch.setattr(log, "_file", Full(log._file))
    with pytest.raises(UserError, match="the disk is full"):
        log.log(record(2))
    assert lines(log.path) == [record(1)]
