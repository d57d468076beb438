"""The benchmark of preparing: a corpus without repeats, peers that come to the same tokens, and a table of all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ingot.bench import corpus, peers
from ingot.bench import prepare as bench
from ingot.bench.corpus import write_corpus
from ingot.bench.prepare import Contender, bench_prepare
from ingot.data.build import build
from ingot.data.build.plan import Corpus
from ingot.data.clean import Cleaning
from ingot.data.source import HeldOut, Local
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE

TEXT = "\n".join(
    f"Passage {n}: the word{n} of it is rare, said he{n % 50}; {n * 7} others are not." for n in range(400)
)


@pytest.fixture(autouse=True)
def text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_text", lambda: TEXT)


def test_a_corpus_is_as_large_as_asked_for_and_nothing_in_it_comes_twice(tmp_path: Path):
    file = tmp_path / "corpus.jsonl"
    documents, size, share = write_corpus(file, 0.3)
    texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    assert len(texts) == documents == len(set(texts))
    assert 0.3e6 <= size == sum(map(len, texts)) < 0.31e6
    assert 0 < share < 1
    met, new = set(), []
    for text in texts:
        words = set(re.findall(r"\w+", text))
        new.append(len(words - met))
        met |= words
    half = len(new) // 2
    assert sum(new[half:]) > sum(new[:half]) / 4  # they never cease to come
    write_corpus(tmp_path / "again.jsonl", 0.3)
    assert (tmp_path / "again.jsonl").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_come_to_the_tokens_that_are_in_the_cache(name: str, tmp_path: Path):
    if name != "tokenizers":
        pytest.importorskip("tiktoken")
    file = tmp_path / "corpus.jsonl"
    documents, _, _ = write_corpus(file, 0.05)
    BPE(vocabulary=400).train(iter([TEXT])).save(tmp_path / "tokenizer")
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    made = Corpus((Local(path=str(file)),), HeldOut(share=0), Cleaning(), (Local(path=str(file)),))
    view = build(made, tokenizer, tmp_path / "cache", workers=1).train
    ids = view.read(0, view.tokens)
    count = peers.PEERS[name](file, tmp_path / "out.bin", tmp_path / "tokenizer")
    found = np.fromfile(tmp_path / "out.bin", np.uint16)
    if name == "nanogpt":  # which has the end token behind each document
        found = np.concatenate([found[-1:], found[:-1]])
    assert count == view.tokens > documents
    assert np.array_equal(found, ids)


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch):
    """Lets the given programs run as contenders, by name."""

    def use(**programs: str) -> None:
        made = [
            Contender(name, ["-c", program], "nothing_of_that_name" if name == "missing" else "")
            for name, program in programs.items()
        ]
        monkeypatch.setattr(bench, "_contenders", lambda folder: made)
        monkeypatch.setattr(bench, "_loading", lambda cache: "Loading: next to nothing")

    return use


def test_one_that_fails_is_left_out_and_one_that_is_missing_named(
    contenders, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(bench, "LOOK_SECONDS", 0.01)
    make = "import glob, pathlib, time; time.sleep(0.2); big = bytearray(50_000_000)\n"
    make += f"[place] = glob.glob({str(tmp_path / 'ingot-bench-*')!r})\n"
    make += "place = pathlib.Path(place, 'ingot', 'x'); place.mkdir(parents=True); (place / 'index.json').touch()\n"
    make += "time.sleep(0.2)"
    contenders(breaks="1 / 0", missing="", ingot=make)
    (measured,) = bench_prepare(0.02, rounds=2)
    assert measured.name == "ingot" and len(measured.seconds) == 2
    assert min(measured.seconds) > 0.4
    assert max(measured.peaks) > 50e6
    said = capsys.readouterr().out
    assert "left out: breaks: ZeroDivisionError: division by zero" in said
    assert f"left out: missing: nothing_of_that_name is missing; {pip_install('bench')}" in said
    assert "1.00x" in said and "Loading: next to nothing" in said
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_without_ingot_there_is_nothing_to_compare(contenders):
    contenders(ingot="raise SystemExit(1)")
    with pytest.raises(UserError, match="ingot's own preparing could not be measured"):
        bench_prepare(0.02, rounds=1)


def test_without_any_text_at_hand_there_is_a_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.undo()
    monkeypatch.setattr(corpus, "PACKAGES", (("no-such-package", "*.txt"),))
    with pytest.raises(UserError, match=re.escape(pip_install("demo"))):
        write_corpus(tmp_path / "corpus.jsonl", 1)


def test_ingot_is_measured_as_it_is_called_from_a_shell(tmp_path: Path):
    own = bench._contenders(tmp_path)[-1]
    assert own.name == "ingot" and own.command[:3] == ["-m", "ingot", "prepare"]
    assert Path(own.command[3]).is_file()
