from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ingot.data.build import build, spelling
from ingot.data.build.board import Board, encoder_file
from ingot.data.build.plan import Corpus, Plan, groups_of
from ingot.data.cache import TokenCache
from ingot.data.clean import Cleaning
from ingot.data.source import HeldOut, Local
from ingot.errors import UserError
from ingot.files import make_folder
from ingot.tokenizer.tokenizer import Tokenizer


@pytest.fixture(params=["none", "exact"])
def corpus(texts: Path, request: pytest.FixtureRequest) -> Corpus:
    return Corpus((Local(path=str(texts), max_bytes=30_000),), HeldOut(), Cleaning(duplicates=request.param))


@pytest.fixture
def alone(small_units, corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> TokenCache:
    """The cache as one process makes it without a hitch."""
    return build(corpus, tokenizer, tmp_path / "alone")


@pytest.fixture
def plan(alone: TokenCache, corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> Plan:
    """The same cache, elsewhere, about to be made."""
    folder = tmp_path / "other"
    make_folder(folder / alone.fingerprint / "work")
    groups = groups_of([source.parts() for source in corpus.sources])
    return Plan(folder / alone.fingerprint, corpus, corpus.fingerprint(folder), tokenizer, groups)


def do_until(board: Board, name: str) -> None:
    while not (task := board.missing()[0]).name.startswith(name):
        task.do()


@pytest.mark.parametrize("cut", ["train-00001.bin", "train-00001.starts", "00001.json"])
def test_what_a_machine_that_went_down_left_cut_is_made_again(plan: Plan, alone: TokenCache, cut: str):
    do_until(Board(plan), "decide" if plan.corpus.clean.duplicates == "exact" else "join")
    file = plan.work / "made" / cut
    file.write_bytes(file.read_bytes()[:-3])
    again = build(plan.corpus, plan.tokenizer, plan.folder.parent)
    assert {file.name: file.read_bytes() for file in again.folder.iterdir()} == {
        file.name: file.read_bytes() for file in alone.folder.iterdir()
    }


def test_a_join_that_was_interrupted_is_done_again(plan: Plan, alone: TokenCache, monkeypatch: pytest.MonkeyPatch):
    board = Board(plan)
    do_until(board, "join")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ingot.data.build.joining.flush", interrupt)
        with pytest.raises(KeyboardInterrupt):
            board.missing()[0].do()
    assert list(plan.folder.glob("*.bin")) and not TokenCache.exists(plan.folder)
    build(plan.corpus, plan.tokenizer, plan.folder.parent).verify()
    assert (plan.folder / "index.json").read_bytes() == (alone.folder / "index.json").read_bytes()


def test_a_cache_that_another_process_gave_up_is_one_line(plan: Plan):
    board = Board(plan)
    do_until(board, "make")
    shutil.rmtree(plan.folder)
    with pytest.raises(UserError, match="another process gave up this token cache, and says why"):
        board.missing()


def test_an_encoder_that_only_another_machine_has_changes_nothing(
    plan: Plan, alone: TokenCache, monkeypatch: pytest.MonkeyPatch
):
    encoder = spelling.encoder

    def without(tokenizer: Tokenizer, name: str = "tokenizers"):
        if name == "elsewhere":
            raise ImportError
        return encoder(tokenizer, name)

    monkeypatch.setattr(spelling, "encoder", without)
    make_folder(encoder_file(plan.folder).parent)
    encoder_file(plan.folder).write_text(json.dumps({"name": "elsewhere", "reason": ""}))
    again = build(plan.corpus, plan.tokenizer, plan.folder.parent)
    assert (again.folder / "train-00000.bin").read_bytes() == (alone.folder / "train-00000.bin").read_bytes()
