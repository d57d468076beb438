from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from ingot.data import prepare as preparing
from ingot.data.prepare import prepare, sample
from ingot.data.source import HeldOut, Local
from ingot.errors import UserError
from ingot.tokenizer.training import BPE

CONFIG = BPE(vocabulary=280)


def test_all_of_the_training_text_is_sampled_where_it_fits(texts: Path):
    found = list(sample([Local(path=str(texts))], HeldOut(), 10**9))
    files = sorted(texts.rglob("*.txt"), key=Path.as_posix)
    assert found == [file.read_text() for number, file in enumerate(files) if number % 20]


def test_a_smaller_sample_is_taken_evenly_from_all_parts(small_units, texts: Path, tmp_path: Path):
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps({"text": f"{n} " * 10}) + "\n" for n in range(2000)))
    sources = [Local(path=str(texts)), Local(path=str(lines))]
    sizes = [sum(file.stat().st_size for file in texts.rglob("*.txt")), lines.stat().st_size]
    limit = sum(sizes) // 4
    found = list(sample(sources, HeldOut(share=0), limit))
    assert found == list(sample(sources, HeldOut(share=0), limit))
    numbers = [int(text.split()[0]) for text in found if text[0].isdigit()]
    taken = (
        sum(len(text.encode()) for text in found if text[0].isdigit()),
        sum(len(text.encode()) for text in found if not text[0].isdigit()),
    )
    assert abs(taken[0] / sizes[1] - 0.25) < 0.03 and abs(taken[1] / sizes[0] - 0.25) < 0.03
    assert min(numbers) == 0 and max(numbers) > 1900
    gaps = [after - before for before, after in pairwise(numbers)]
    assert max(gaps) < 40  # a part holds 26 to 30 lines
    starts = {file.read_text()[:3] for file in texts.rglob("*.txt")}
    assert {text[:3] for text in found if not text[0].isdigit()} <= starts


def test_preparing_twice_finds_everything_made(texts: Path, tmp_path: Path):
    said: list[str] = []
    arguments = [Local(path=str(texts))], HeldOut(), CONFIG, tmp_path / "cache"
    tokenizer, cache = prepare(*arguments, said.append)
    assert any("training on" in line for line in said) and any(
        "43" not in line and "held out: 3 documents" in line for line in said
    )
    said.clear()
    again, same = prepare(*arguments, said.append)
    assert not any("training on" in line for line in said)
    assert (again.fingerprint, same.fingerprint) == (tokenizer.fingerprint, cache.fingerprint)
    assert tokenizer.vocabulary == 280
    other, _ = prepare(*arguments[:2], BPE(vocabulary=270), tmp_path / "cache")
    assert other.vocabulary == 270


def test_what_was_found_and_dropped_is_said(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "' + "some words " * 50 + '"}\n{"content": "held out or not"}\nbad\n')
    said: list[str] = []
    prepare([Local(path=str(path))], HeldOut(), CONFIG, tmp_path / "cache", said.append)
    assert any("text field 'content'" in line for line in said)
    assert f"dropped 1 records: not JSON (the first at {path}:3)" in said


def test_only_a_long_build_says_how_far_it_is(small_units, texts: Path, tmp_path: Path, monkeypatch):
    said: list[str] = []
    prepare([Local(path=str(texts))], HeldOut(), CONFIG, tmp_path / "quick", said.append)
    assert not any(" MB, " in line and "%" in line for line in said)
    seconds = iter(range(0, 10_000, 6))  # that pass between two looks at the clock
    monkeypatch.setattr(preparing.time, "monotonic", lambda: next(seconds))
    prepare([Local(path=str(texts))], HeldOut(), CONFIG, tmp_path / "slow", said.append)
    far = [line for line in said if line.startswith("token cache: ") and "%" in line]
    groups = len(list((tmp_path / "slow").glob("*/train-*.bin")))
    assert groups > 6 and len(far) == (groups - 1) // 2  # a line for every other group, none for the last
    assert all(line.endswith(("seconds left", "minutes left")) for line in far)


@pytest.mark.parametrize("place", ["/dev/null/x", "file"])
def test_a_cache_folder_that_can_not_be_is_one_line(place: str, texts: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="this place can't be written to"):
        prepare([Local(path=str(texts))], HeldOut(), CONFIG, tmp_path / place)


def test_nothing_to_sample_is_an_error(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one document alone")
    with pytest.raises(UserError, match=r"no document is left to train on \(1 held out"):
        prepare([Local(path=str(tmp_path / "a.txt"))], HeldOut(), CONFIG, tmp_path / "cache")
