"""Files are whole or absent."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from ingot import files
from ingot.errors import UserError


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    final = tmp_path / "whole"
    with files.new_folder(final) as draft:
        (draft / "part").write_text("x")
        assert not final.exists()
    assert (final / "part").read_text() == "x"

    broken = tmp_path / "broken"
    with pytest.raises(RuntimeError), files.new_folder(broken) as draft:
        (draft / "part").write_text("x")
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "value"
    files.write_atomically(path, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        files.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [path]


def test_sha256_is_that_of_the_content(tmp_path):
    path = tmp_path / "value"
    path.write_bytes(b"ingot" * 100_000)
    assert files.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("place", ["/dev/null/x/y", "file", "file/deep", "dangling", "x" * 300, "/proc/x/y"])
def test_a_place_that_can_hold_nothing_is_one_line(tmp_path, place):
    if place.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("no such place on this system")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    folder = tmp_path / place
    with pytest.raises(UserError, match="this place can't be written to"):
        files.make_folder(folder)
    with pytest.raises(UserError, match="this place can't be written to"):
        files.write_atomically(folder / "value", "new")
    with pytest.raises(UserError, match="this place can't be written to"), files.new_folder(folder / "new"):
        pytest.fail("there is no draft to write to")
    assert (tmp_path / "file").read_text() == "kept"


def test_an_input_that_is_missing_is_no_fault_of_the_place(tmp_path):
    with pytest.raises(FileNotFoundError), files.new_folder(tmp_path / "new"):
        (tmp_path / "input").read_bytes()
