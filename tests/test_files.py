"""Files are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_as_open_as_the_umask_says_whoever_writes_them(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with files.new_folder(tmp_path / "folder") as draft:
            (draft / "below").mkdir()
            save_file({"x": np.zeros(1)}, draft / "below" / "private.safetensors")
            (draft / "plain").write_text("x")
        with files.new_file(tmp_path / "alone") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {mode}


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
