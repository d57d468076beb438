from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingot.data.build import build
from ingot.data.build.plan import Corpus
from ingot.data.build.report import count, lines, places, size, warnings
from ingot.data.source import Conversations, HeldOut, Local
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


def test_a_line_that_holds_many_records_is_named_once(tmp_path: Path, tokenizer: Tokenizer):
    lone, talk = {"messages": [{"role": "user", "content": "Hi"}]}, {"messages": ["Hello, you.", "And you."]}
    (tmp_path / "talks.json").write_text(json.dumps([lone] * 3 + [talk]))
    corpus = Corpus((Conversations(path=f"{tmp_path}/talks.json"),), HeldOut(share=0))
    report = build(corpus, tokenizer, tmp_path / "cache").report
    assert [entry["examples"] for entry in report["dropped"].values()] == [[f"{tmp_path}/talks.json:1"]]
    told = f"dropped 3 records: fewer than two turns (the first at {tmp_path}/talks.json:1)"
    assert told in lines(report)


@pytest.mark.parametrize(
    ("examples", "told"),
    [
        (["a.jsonl:3", "a.jsonl:7", "b.jsonl:1", "a.jsonl:9"], "a.jsonl:3, 7, 9; b.jsonl:1"),
        (["a.parquet, row 1,000", "a.txt, byte 70000000"], "a.parquet, row 1,000; a.txt, byte 70000000"),
        (["C:\\a.jsonl:3", "C:\\a.parquet, row 4"], "C:\\a.jsonl:3; C:\\a.parquet, row 4"),
    ],
)
def test_lines_of_one_file_stand_behind_its_name(examples: list[str], told: str):
    assert places(examples) == told


def test_a_vocabulary_that_suits_its_text_is_not_warned_of():
    report = {"train": {"tokens": 1_000_000}}
    assert not list(warnings(report, 8192, 8192)) and not list(warnings(report, 50_257, None))
    assert len(list(warnings(report, 8000, 8192))) == 1
    assert ["tokenizer.vocabulary=10000" in line for line in warnings(report, 32_000, 32_000)] == [True]
