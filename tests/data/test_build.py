from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from ingot.data import build as building
from ingot.data.build import build
from ingot.data.cache import TokenCache
from ingot.data.source import HeldOut, Local
from ingot.errors import UserError
from ingot.files import sha256
from ingot.tokenizer.tokenizer import Tokenizer


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, making a group is a failure."""

    def forbid() -> None:
        monkeypatch.setattr(building, "_make", lambda plan, group: pytest.fail("a finished group was made again"))

    return forbid


def test_the_cache_holds_every_document_behind_its_end_token(small_units, cached, texts: Path, tokenizer: Tokenizer):
    cache = cached(texts)
    files = sorted(texts.rglob("*.txt"), key=Path.as_posix)
    for view, chosen in ((cache.held_out, files[::20]), (cache.train, [f for i, f in enumerate(files) if i % 20])):
        expected = [[tokenizer.end, *tokenizer.encode(file.read_text())] for file in chosen]
        stream = view.read(0, view.tokens)
        assert stream.tolist() == [token for document in expected for token in document]
        assert view.starts.tolist() == np.cumsum([0, *map(len, expected)])[:-1].tolist()
        assert (view.documents, view.tokens) == (len(chosen), sum(map(len, expected)))
        assert view.bytes == sum(file.stat().st_size for file in chosen)
        assert all(view.read(at, at + 50).tolist() == stream[at : at + 50].tolist() for at in range(0, view.tokens, 17))
    assert len(list(cache.folder.glob("train-*.bin"))) > 3
    assert {file.name for file in cache.folder.iterdir() if file.suffix != ".bin"} == {
        *("index.json", "train.starts", "held_out.starts")
    }
    shards = json.loads((cache.folder / "index.json").read_bytes())["shards"]
    for shard in shards["train"] + shards["held_out"]:
        assert shard["sha256"] == sha256(cache.folder / shard["file"])


def test_text_can_not_forge_a_document(cached, tmp_path: Path, tokenizer: Tokenizer):
    (tmp_path / "a.txt").write_text("one<|endoftext|>two")
    cache = cached(tmp_path / "a.txt", share=0)
    assert (cache.train.read(0, 10**6) == tokenizer.end).sum() == cache.train.documents == 1


def test_an_unchanged_input_is_not_read_again(cached, texts: Path, no_work):
    first = cached(texts)
    for file in texts.rglob("*.txt"):
        os.utime(file)
    no_work()
    assert cached(texts).fingerprint == first.fingerprint
    moved = shutil.copytree(texts, texts.parent / "elsewhere")
    assert cached(moved).fingerprint == first.fingerprint


def test_whatever_changes_the_tokens_makes_another_cache(cached, texts: Path, tokenizer: Tokenizer, tmp_path: Path):
    prints = [
        cached(texts).fingerprint,
        cached(texts, share=0.1).fingerprint,
        cached(texts, separator="\n").fingerprint,
    ]
    other = Tokenizer(tokenizer.content, {"eos_token": "<|end|>"})
    prints.append(build([Local(path=str(texts))], other, HeldOut(), tmp_path / "cache").fingerprint)
    file = texts / "000.txt"
    file.write_text(file.read_text().replace("é", "è"))  # of the same size
    prints.append(cached(texts).fingerprint)
    file.rename(texts / "zzz.txt")  # another order
    prints.append(cached(texts).fingerprint)
    assert len(set(prints)) == len(prints)


def test_many_processes_make_the_same_bytes(small_units, cached, texts: Path, tokenizer, tmp_path: Path, monkeypatch):
    alone = cached(texts)
    monkeypatch.setattr(building, "POOL_BYTES", 0)
    progress: list[tuple[int, int]] = []
    together = build(
        [Local(path=str(texts))],
        tokenizer,
        HeldOut(),
        tmp_path / "b",
        workers=3,
        progress=lambda *at: progress.append(at),
    )
    assert content(together.folder) == content(alone.folder)
    assert progress == sorted(progress) and progress[-1][0] == progress[-1][1] == sum(
        f.stat().st_size for f in texts.rglob("*.txt")
    )


def test_an_error_in_a_worker_process_is_the_same_one_line(
    small_units, texts: Path, tokenizer, tmp_path: Path, monkeypatch
):
    source = Local(path=str(texts))
    parts = source.parts()
    monkeypatch.setattr(building, "POOL_BYTES", 0)
    monkeypatch.setattr(Local, "parts", lambda self: parts)
    monkeypatch.setattr(building, "inputs", lambda *_: "fixed")
    parts[30].path.unlink()
    with pytest.raises(UserError, match=r"\.txt: this file was listed and is gone now"):
        build([source], tokenizer, HeldOut(), tmp_path / "cache", workers=2)


CHILD = """
    import sys, time
    from pathlib import Path
    from ingot.data import build, formats
    from ingot.data.source import HeldOut, Local
    from ingot.tokenizer.tokenizer import Tokenizer

    if __name__ == "__main__":
        formats.PART_BYTES, build.SHARD_BYTES, build.POOL_BYTES = 1000, (3000, 3000), 0
        slow = lambda done, total: time.sleep(0.05)  # so that there is a middle in which to be killed
        texts, tokenizer, cache, workers = sys.argv[1:]
        build.build([Local(path=texts)], Tokenizer.load(tokenizer), HeldOut(), Path(cache), workers=int(workers),
                    progress=slow)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    small_units, cached, texts: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch, workers: int
):
    whole = cached(texts)
    script, other = tmp_path / "child.py", tmp_path / "other"
    script.write_text(textwrap.dedent(CHILD))
    tokenizer.save(tmp_path / "tokenizer")
    child = subprocess.Popen(
        [sys.executable, script, texts, tmp_path / "tokenizer", other, str(workers)], stderr=subprocess.DEVNULL
    )
    folder = other / whole.fingerprint
    deadline = time.monotonic() + 60
    while len(list(folder.glob("groups/[0-9]*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    helpers = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.wait()
    assert not psutil.wait_procs(helpers, timeout=30)[1]  # the workers of a killed parent end by themselves
    assert not TokenCache.exists(folder)
    (folder / ".draft-1-train-00000.bin").write_bytes(b"half a shard")
    finished = {file: file.stat().st_mtime_ns for file in folder.glob("[th]*.bin")}
    noted = len(list(folder.glob("groups/[0-9]*.json")))
    made: list[int] = []
    make = building._make
    monkeypatch.setattr(building, "_make", lambda plan, group: (made.append(group.number), make(plan, group))[1])
    build([Local(path=str(texts))], tokenizer, HeldOut(), other)
    groups = len(whole._shards["train"])
    assert noted >= 2 and len(made) == groups - noted > 0
    kept = [file for file, time_ in finished.items() if file.stat().st_mtime_ns == time_]
    assert len(kept) >= noted
    assert content(folder) == content(whole.folder)


def test_a_file_that_changes_while_it_is_read_is_an_error(small_units, texts: Path, tokenizer, tmp_path: Path):
    def change(done: int, total: int) -> None:
        (texts / "000.txt").write_text(str(done))

    with pytest.raises(UserError, match="changed while it was read; run the same command again"):
        build([Local(path=str(texts))], tokenizer, HeldOut(), tmp_path / "cache", progress=change)
    cache = build([Local(path=str(texts))], tokenizer, HeldOut(), tmp_path / "cache")
    assert tokenizer.decode(cache.held_out.read(1, cache.held_out.starts[1])) == (texts / "000.txt").read_text()


def test_what_is_dropped_is_counted_and_placed(cached, tmp_path: Path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b'{"text": "x y z"}\n{oops\n' + b'{"text": "\xff"}\n' * 7 + b'{"text": "good"}\n')
    (folder / "b.txt").write_bytes(b"ab\n\nc\xff")
    report = cached(folder, share=0).report
    assert report["dropped"]["not JSON"] == {"count": 1, "examples": [f"{folder}/a.jsonl:2"]}
    assert report["dropped"]["invalid UTF-8"]["count"] == 8
    assert report["dropped"]["invalid UTF-8"]["examples"] == [f"{folder}/a.jsonl:{line}" for line in range(3, 8)]
    assert report["train"]["documents"] == 2
    [source] = report["sources"]
    assert (source["files"], source["fields"], source["train"]["documents"]) == (2, ["text"], 2)


@pytest.mark.parametrize(
    "name, data, share, message",
    [
        ("a.txt", b"", 0, r"no document is left to train on \(1 dropped: empty"),
        ("a.jsonl", b"{\n[\n", 0, r"2 dropped: not JSON \(.*a.jsonl:1\)"),
        ("a.txt", b"\xff", 0, r"1 dropped: invalid UTF-8 \(.*a.txt:1\)"),
        ("a.jsonl", b"", 0, "there is no record"),
        ("a.txt", b"all of it", 0.05, r"\(1 held out\); data.held_out.share=0 .*separator"),
    ],
)
def test_nothing_left_is_an_error_that_says_what_became_of_it(cached, tmp_path: Path, name, data, share, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        cached(tmp_path / name, share=share)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_two_sources_keep_their_places_and_splits(small_units, texts: Path, tokenizer, tmp_path: Path):
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps({"body": f"line {n}"}) + "\n" for n in range(400)))
    alone = build([Local(path=str(texts))], tokenizer, HeldOut(), tmp_path / "cache")
    both = build([Local(path=str(lines)), Local(path=str(texts))], tokenizer, HeldOut(), tmp_path / "cache")
    tail = both.held_out.read(both.held_out.tokens - alone.held_out.tokens, both.held_out.tokens)
    assert tail.tolist() == alone.held_out.read(0, alone.held_out.tokens).tolist()
    first, second = both.report["sources"]
    assert first["fields"] == ["body"] and first["train"]["documents"] + first["held_out"]["documents"] == 400
    assert second["train"] == alone.report["train"]


def test_a_large_vocabulary_takes_wider_tokens(texts: Path, tokenizer: Tokenizer, tmp_path: Path):
    described = json.loads(tokenizer.content)
    described["model"]["vocab"]["Zz"] = 70_000
    wide = Tokenizer(json.dumps(described))
    assert wide.vocabulary == 70_001 and wide.decode([70_000]) == "Zz"
    view = build([Local(path=str(texts))], wide, HeldOut(), tmp_path / "cache").train
    assert view.read(0, 5).dtype == np.uint32
    assert tokenizer.decode(view.read(1, view.starts[1])) == (texts / "003.txt").read_text()


def test_a_cache_that_lacks_bytes_is_named(cached, texts: Path):
    cache = cached(texts)
    shard = cache.folder / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(UserError, match="this token cache is not whole; remove the folder"):
        TokenCache.open(cache.folder)
