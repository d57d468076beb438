"""Files are whole or absent."""

from __future__ import annotations

import errno
import gzip
import hashlib

import pytest
import zstandard

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


@pytest.mark.parametrize(
    ("name", "pack"), [("a.txt", bytes), ("a.txt.gz", gzip.compress), ("a.txt.zst", zstandard.compress)]
)
def test_packed_files_open_as_what_they_hold(tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(b"one\ntwo\n"))
    with files.open_bytes(path) as file:
        assert list(file) == [b"one\n", b"two\n"]
