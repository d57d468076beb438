from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from xxhash import xxh3_128

from ingot.data import build as building
from ingot.data.build import board, build
from ingot.data.build.board import Board, Standing
from ingot.data.build.plan import Corpus
from ingot.data.cache import TokenCache
from ingot.data.clean import Cleaning
from ingot.data.source import HeldOut, Local
from ingot.errors import UserError
from ingot.tokenizer.tokenizer import Tokenizer


def corpus(*paths: Path) -> Corpus:
    return Corpus(tuple(Local(path=str(path)) for path in paths), HeldOut())


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, making a group is a failure."""

    def forbid() -> None:
        monkeypatch.setattr(board, "make", lambda *_: pytest.fail("a finished group was made again"))

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
        *("index.json", "report.json", "train.starts", "held_out.starts")
    }
    shards = json.loads((cache.folder / "index.json").read_bytes())["shards"]
    for shard in shards["train"] + shards["held_out"]:
        assert shard["digest"] == xxh3_128(cache.folder.joinpath(shard["file"]).read_bytes()).hexdigest()


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
    prints.append(build(corpus(texts), other, tmp_path / "cache").fingerprint)
    file = texts / "000.txt"
    file.write_text(file.read_text().replace("é", "è"))  # of the same size
    prints.append(cached(texts).fingerprint)
    file.rename(texts / "zzz.txt")  # another order
    prints.append(cached(texts).fingerprint)
    assert len(set(prints)) == len(prints)


def test_many_processes_make_the_same_bytes(small_units, cached, texts: Path, tokenizer, tmp_path: Path, monkeypatch):
    alone = cached(texts)
    monkeypatch.setattr(building, "POOL_BYTES", 0)
    standing: list[Standing] = []
    together = build(
        corpus(texts), tokenizer, tmp_path / "b", workers=3, progress=lambda board: standing.append(board.standing())
    )
    assert content(together.folder) == content(alone.folder)
    whole = sum(file.stat().st_size for file in texts.rglob("*.txt"))
    assert [one.done for one in standing] == sorted(one.done for one in standing)
    assert {one.total for one in standing if one.what} == {whole}


def test_what_a_helper_meets_this_process_meets(small_units, texts: Path, tokenizer, tmp_path: Path, monkeypatch):
    parts = Local(path=str(texts)).parts()
    monkeypatch.setattr(building, "POOL_BYTES", 0)
    monkeypatch.setattr(Local, "parts", lambda self: parts)
    monkeypatch.setattr(Corpus, "fingerprint", lambda *_: "fixed")
    parts[30].path.unlink()
    with pytest.raises(UserError, match=r"\.txt: this file was listed and is gone now"):
        build(corpus(texts), tokenizer, tmp_path / "cache", workers=2)


CHILD = """
    import json, sys, time
    from pathlib import Path
    from ingot.data import formats
    from ingot.data.build import board, build, plan
    from ingot.data.build.plan import Corpus
    from ingot.data.clean import Cleaning
    from ingot.data.source import HeldOut, Local
    from ingot.tokenizer.tokenizer import Tokenizer
    import ingot.data.build as building

    make = board.make
    def slow(*arguments):  # so that there is a middle in which to be killed
        make(*arguments)
        time.sleep(0.05)

    if __name__ == "__main__":
        formats.PART_BYTES, plan.SHARD_BYTES, building.POOL_BYTES, board.make = 1000, (3000, 3000), 0, slow
        paths, tokenizer, cache, workers, clean = sys.argv[1:]
        sources = tuple(Local.model_validate(source) for source in json.loads(paths))
        corpus = Corpus(sources, HeldOut(), Cleaning(duplicates=clean))
        build(corpus, Tokenizer.load(tokenizer), Path(cache), workers=int(workers))
"""


@pytest.fixture
def start(tmp_path: Path, tokenizer: Tokenizer) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process that builds the cache of some sources in `folder`."""
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    tokenizer.save(tmp_path / "tokenizer")
    started = []

    def begin(corpus: Corpus, folder: Path, workers: int = 1) -> subprocess.Popen[bytes]:
        sources = json.dumps([source.to_dict() for source in corpus.sources])
        words = [sources, tmp_path / "tokenizer", folder, str(workers), corpus.clean.duplicates]
        started.append(subprocess.Popen([sys.executable, script, *words], stderr=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def notes(folder: Path) -> list[Path]:
    return list(folder.glob("work/made/[0-9]*.json"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    small_units, cached, texts: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch, start, workers: int
):
    whole, other = cached(texts), tmp_path / "other"
    folder = other / whole.fingerprint
    child = start(corpus(texts), other, workers)
    wait_for(lambda: len(notes(folder)) >= 2 or child.poll() is not None)
    assert child.poll() is None, child.stderr.read()
    helpers = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.wait()
    assert not psutil.wait_procs(helpers, timeout=30)[1]  # the helpers of a killed process end by themselves
    assert not TokenCache.exists(folder)
    (folder / "work" / "made" / ".draft-1-train-00000.bin").write_bytes(b"half a shard")
    noted = {file.stem for file in notes(folder)}
    made: set[str] = set()
    make = board.make
    monkeypatch.setattr(board, "make", lambda plan, group, *rest: (made.add(group.name), make(plan, group, *rest))[1])
    build(corpus(texts), tokenizer, other)
    assert len(noted) >= 2 and made and not made & noted
    assert content(folder) == content(whole.folder)


def test_processes_started_by_hand_share_the_work_and_some_are_killed(
    small_units, texts: Path, tokenizer: Tokenizer, tmp_path: Path, start
):
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"text": f"line {number % 300} " * 9}) + "\n" for number in range(600)))
    limited = Local(path=str(texts), max_bytes=20_000)
    both = Corpus((limited, Local(path=str(lines))), HeldOut(), Cleaning(duplicates="exact"))
    alone = build(both, tokenizer, tmp_path / "alone")
    folder = tmp_path / "shared"
    first, killed, last = (start(both, folder) for _ in range(3))
    wait_for(lambda: len(notes(folder / alone.fingerprint)) >= 3)
    killed.kill()
    assert (first.wait(60), last.wait(60)) == (0, 0), first.stderr and first.stderr.read()
    assert content(folder / alone.fingerprint) == content(alone.folder)
    assert alone.report["dropped"]["exact duplicate"]["count"] > 200


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment_again_and_again(
    small_units, texts: Path, tokenizer: Tokenizer, tmp_path: Path, start, seed: int
):
    random = np.random.default_rng(seed)
    limits = [{}, {"max_documents": 17}, {"max_bytes": 20_000}, {"target_tokens": 9000}][seed % 4]
    clean = Cleaning(duplicates=("none", "exact")[seed // 4 % 2])
    one = Corpus((Local(path=str(texts), **limits),), HeldOut(), clean)
    alone = build(one, tokenizer, tmp_path / "alone")
    folder = tmp_path / "shared"
    for _ in range(6):
        crew = [start(one, folder, int(random.integers(1, 3))) for _ in range(random.integers(1, 3))]
        wait_for((folder / alone.fingerprint).exists)
        time.sleep(random.uniform(0, 0.8))
        for process in crew:
            process.kill()
            process.wait()
    build(one, tokenizer, folder)
    assert content(folder / alone.fingerprint) == content(alone.folder)


def test_a_file_that_changes_while_it_is_read_is_an_error(small_units, texts: Path, tokenizer, tmp_path: Path):
    def change(board: Board) -> None:
        (texts / "000.txt").write_text(f"changed at {time.monotonic_ns()}")

    with pytest.raises(UserError, match="changed while it was read; run the same command again"):
        build(corpus(texts), tokenizer, tmp_path / "cache", progress=change)
    cache = build(corpus(texts), tokenizer, tmp_path / "cache")
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
    alone = build(corpus(texts), tokenizer, tmp_path / "cache")
    both = build(corpus(lines, texts), tokenizer, tmp_path / "cache")
    tail = both.held_out.read(both.held_out.tokens - alone.held_out.tokens, both.held_out.tokens)
    assert tail.tolist() == alone.held_out.read(0, alone.held_out.tokens).tolist()
    first, second = both.report["sources"]
    assert first["fields"] == ["body"] and first["train"]["documents"] + first["held_out"]["documents"] == 400
    assert second["train"] == alone.report["train"]
    for number, name in enumerate((lines, texts)):
        assert both.sources[number]["name"] == str(name)
    for part in (both.train.of(1), both.train.of(1).of(1)):
        assert part.starts.tolist() == alone.train.starts.tolist()
        assert part.read(0, 10**9).tolist() == alone.train.read(0, 10**9).tolist()
        assert part.starts_within(100, 900).tolist() == alone.train.starts_within(100, 900).tolist()
    assert both.train.of(0).tokens + both.train.of(1).tokens == both.train.tokens
    assert both.train.of(2).tokens == both.train.of(2).documents == 0


def test_a_large_vocabulary_takes_wider_tokens(texts: Path, tokenizer: Tokenizer, tmp_path: Path):
    described = json.loads(tokenizer.content)
    described["model"]["vocab"]["Zz"] = 70_000
    wide = Tokenizer(json.dumps(described))
    assert wide.vocabulary == 70_001 and wide.decode([70_000]) == "Zz"
    view = build(corpus(texts), wide, tmp_path / "cache").train
    assert view.read(0, 5).dtype == np.uint32
    assert tokenizer.decode(view.read(1, view.starts[1])) == (texts / "003.txt").read_text()


def test_a_bit_that_fell_over_is_found_on_demand(cached, texts: Path):
    cache = cached(texts)
    cache.verify()
    for file in ("train-00000.bin", "held_out-00000.bin", "train.starts"):
        path = cache.folder / file
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=f"the bytes of {file} are not those that were written"):
            TokenCache.open(cache.folder).verify()
        path.write_bytes(whole)


def test_a_cache_that_lacks_bytes_is_named(cached, texts: Path):
    cache = cached(texts)
    shard = cache.folder / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(UserError, match="this token cache is not whole; remove the folder"):
        TokenCache.open(cache.folder)
