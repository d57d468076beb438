from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingot.data.build import build
from ingot.data.build.plan import Corpus
from ingot.data.build.report import count, lines, size, warnings
from ingot.data.source import HeldOut, Local
from ingot.tokenizer.tokenizer import Tokenizer


@pytest.mark.parametrize(
    "number, said",
    [
        *[(0, "0 bytes"), (1, "1 byte"), (99, "99 bytes"), (940, "0.9 KB"), (12_300_000, "12.3 MB")],
        *[(999_960, "1.0 MB"), (1_500_000_000, "1.5 GB"), (2.5e12, "2.5 TB"), (3e15, "3,000.0 TB")],
    ],
)
def test_sizes_have_units(number: float, said: str):
    assert size(number) == said


def test_plurals():
    assert [count(1, "document"), count(2_000, "document"), count(2, "process")] == [
        *("1 document", "2,000 documents", "2 processes")
    ]


def test_every_record_is_told_of(tmp_path: Path, tokenizer: Tokenizer):
    rows = ['{"content": "' + "some words " * 9 + '"}', '{"content": "short"}', "bad", '{"content": " "}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "b.txt").write_text("the second source")
    sources = (Local(path=f"{tmp_path}/a.jsonl"), Local(path=f"{tmp_path}/b.txt"))
    cache = build(Corpus(sources, HeldOut(share=0)), tokenizer, tmp_path / "cache")
    report = cache.report
    assert report["found"] == 5 and report["train"]["documents"] == 3
    assert report["longest"] == {"bytes": 99, "place": f"{tmp_path}/a.jsonl:1"}
    assert sum(source["share"] for source in report["sources"]) == pytest.approx(1)
    assert [source["found"] for source in report["sources"]] == [4, 1]
    said = list(lines(report))
    assert said[0] == f"{tmp_path}/a.jsonl: 1 file, 0.2 KB, 2 documents, text field 'content'"
    assert said[1] == f"{tmp_path}/b.txt: 1 file, 17 bytes, 1 document"
    assert f"dropped 1 record: not JSON (at {tmp_path}/a.jsonl:3)" in said
    assert json.loads((cache.folder / "report.json").read_bytes()) == report


def test_a_vocabulary_that_suits_its_text_is_not_warned_of():
    report = {"train": {"tokens": 1_000_000}}
    assert not list(warnings(report, 8192, 8192)) and not list(warnings(report, 50_257, None))
    assert len(list(warnings(report, 8000, 8192))) == 1
    assert ["tokenizer.vocabulary=10000" in line for line in warnings(report, 32_000, 32_000)] == [True]
