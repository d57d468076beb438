from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import xxhash

from ingot.data import digests
from ingot.data.digests import Digests
from ingot.errors import UserError


def write(path: Path, content: bytes, age: float = 60) -> Path:
    path.write_bytes(content)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_a_digest_is_that_of_the_content_however_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a", b"content " * 1000)
    wanted = f"xxh3:{xxhash.xxh3_128(path.read_bytes()).hexdigest()}"
    assert Digests(tmp_path / "memory").of([path, path]) == {path: wanted}
    monkeypatch.setattr(digests, "READ_BYTES", 7)
    assert Digests(tmp_path / "other").of([path]) == {path: wanted}


def test_what_is_remembered_is_not_read_again_and_what_changed_is(tmp_path: Path):
    old, fresh = write(tmp_path / "old", b"one"), write(tmp_path / "fresh", b"one", age=0)
    memory = tmp_path / "memory"
    before = Digests(memory).of([old, fresh])
    for path in (old, fresh):  # the same size, and behind the memory's back the same time
        stat = path.stat()
        path.write_bytes(b"two")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = Digests(memory).of([old, fresh])
    assert after[old] == before[old]
    assert after[fresh] != before[fresh]  # a file so young is never trusted
    assert Digests(memory).of([write(old, b"two", age=30)])[old] == after[fresh]


@pytest.mark.parametrize("memory", [b"", b"{damaged", b'{"%s": [3, 1, "sha256 of another version"]}'])
def test_a_memory_that_says_nothing_is_only_forgotten(tmp_path: Path, memory: bytes):
    path = write(tmp_path / "a", b"one")
    entry = json.dumps({str(path): [3, path.stat().st_mtime_ns, "0" * 64]}).encode()
    (tmp_path / "memory").write_bytes(entry if b"%s" in memory else memory)
    assert Digests(tmp_path / "memory").of([path]) == Digests(tmp_path / "new").of([path])


def test_a_file_that_is_gone_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match="is gone now"):
        Digests(tmp_path / "memory").of([tmp_path / "gone"])
