from __future__ import annotations

import random
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from ingot.data import prepare as preparing
from ingot.data.build import board
from ingot.data.build.plan import Group
from ingot.data.build.report import lines
from ingot.data.prepare import prepare
from ingot.data.source import HeldOut, Local
from ingot.errors import UserError
from ingot.tokenizer.training import BPE

CONFIG = BPE(vocabulary=280)


def test_preparing_twice_finds_everything_made(texts: Path, tmp_path: Path):
    said: list[str] = []
    arguments = [Local(path=str(texts))], HeldOut(), CONFIG, tmp_path / "cache"
    tokenizer, cache = prepare(*arguments, said.append)
    assert any("training on" in line for line in said)
    assert "held out: 3 documents" in " ".join(lines(cache.report))
    said.clear()
    again, same = prepare(*arguments, said.append)
    assert not any("training on" in line for line in said)
    assert (again.fingerprint, same.fingerprint) == (tokenizer.fingerprint, cache.fingerprint)
    assert tokenizer.vocabulary == 280
    other, _ = prepare(*arguments[:2], BPE(vocabulary=270), tmp_path / "cache")
    assert other.vocabulary == 270


def test_only_a_long_build_says_how_far_it_is(small_units, texts: Path, tmp_path: Path, monkeypatch):
    said: list[str] = []
    prepare([Local(path=str(texts))], HeldOut(), CONFIG, tmp_path / "quick", said.append)
    assert not any("%" in line for line in said)
    seconds = iter(range(0, 10_000, 6))  # that pass between two looks at the clock
    monkeypatch.setattr(preparing, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    prepare([Local(path=str(texts))], HeldOut(), CONFIG, tmp_path / "slow", said.append)
    far = [line for line in said if line.startswith("token cache: ") and "%" in line]
    groups = len(list((tmp_path / "slow").glob("*/train-*.bin")))
    assert groups > 6 and abs(len(far) - groups / 2) <= 1  # a line after every other task
    assert all(line.endswith(("seconds left", "minutes left")) for line in far[1:])


def test_other_processes_at_work_are_counted(small_units, texts: Path, tmp_path: Path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(preparing, "QUIET_SECONDS", 0)
    make = board.make

    held: list[FileLock] = []

    def beside(plan, group, *rest):
        """Another process holds the smallest group while this one makes some of the others."""
        made.append(group)
        if len(made) == 1:
            last = min(plan.groups, key=lambda group: group.size)
            held.append(FileLock(plan.work / f"make-{last.name}.lock"))
            held[0].acquire()
        make(plan, group, *rest)
        if len(made) == 4:
            held[0].release()

    made: list[Group] = []
    monkeypatch.setattr(board, "make", beside)
    prepare([Local(path=str(texts))], HeldOut(), CONFIG, tmp_path / "cache", said.append)
    assert any("2 processes at work" in line for line in said)
    assert not any("processes" in line for line in said[-2:])


def test_a_text_too_small_for_the_vocabulary_is_said(tmp_path: Path):
    def said(text: str) -> str:
        (tmp_path / "a.txt").write_text(text)
        lines: list[str] = []
        source = Local(path=str(tmp_path / "a.txt"))
        prepare([source], HeldOut(share=0), BPE(vocabulary=1200), tmp_path / "cache", lines.append)
        return "\n".join(lines)

    few = said("one two three. " * 20)
    assert "not 1,200: it has no more pairs to merge" in few
    assert "would suit it better" not in few  # a vocabulary that small is none to advise against
    many = said(" ".join(random.Random(1).choices(["".join(word) for word in product("abcdefghij", repeat=3)], k=9999)))
    assert "the text is small for a vocabulary of 1,200" in many


@pytest.mark.parametrize("place", ["/dev/null/x", "file"])
def test_a_cache_folder_that_can_not_be_is_one_line(place: str, texts: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="this place can't be written to"):
        prepare([Local(path=str(texts))], HeldOut(), CONFIG, tmp_path / place)


def test_nothing_to_sample_is_an_error(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one document alone")
    with pytest.raises(UserError, match=r"no document is left to train on \(1 held out"):
        prepare([Local(path=str(tmp_path / "a.txt"))], HeldOut(), CONFIG, tmp_path / "cache")
