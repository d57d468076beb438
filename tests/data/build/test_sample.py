from __future__ import annotations

import gzip
import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ingot.data.build.plan import Corpus
from ingot.data.build.sample import content_sizes, sample
from ingot.data.clean import Cleaning
from ingot.data.source import HeldOut, Local

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def test_all_of_the_training_text_is_sampled_where_it_fits(texts: Path):
    found = list(sample(Corpus((Local(path=str(texts)),), HeldOut()), 10**9))
    files = sorted(texts.rglob("*.txt"), key=Path.as_posix)
    assert found == [file.read_text() for number, file in enumerate(files) if number % 20]


def test_a_smaller_sample_is_taken_evenly_from_all_parts(small_units, texts: Path, tmp_path: Path):
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps({"text": f"{n} " * 10}) + "\n" for n in range(2000)))
    corpus = Corpus((Local(path=str(texts)), Local(path=str(lines))), HeldOut(share=0))
    sizes = [sum(file.stat().st_size for file in texts.rglob("*.txt")), lines.stat().st_size]
    limit = sum(sizes) // 4
    found = list(sample(corpus, limit))
    assert found == list(sample(corpus, limit))
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


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps({"text": f"{n} e\u0301 " * 10}) + "\n" for n in range(1000)))
    return path


@pytest.mark.parametrize("limit", [{"max_documents": 30}, {"max_bytes": 2_000}, {"target_tokens": 2_000}])
@pytest.mark.parametrize("size", [1_000, 10**9])
def test_a_limited_source_is_sampled_within_its_limit(small_units, lines: Path, limit: dict[str, int], size: int):
    corpus = Corpus((Local(path=str(lines), **limit),), HeldOut(share=0))
    found = list(sample(corpus, size))
    numbers = [int(text.split()[0]) for text in found]
    assert numbers == list(range(len(found))) and 10 < len(found) <= limit.get("max_documents", 10**9)
    assert sum(len(text.encode()) for text in found) <= min(2_100, size)


def test_many_parts_are_stood_for_by_evenly_spaced_ones(small_units, lines: Path):
    corpus = Corpus((Local(path=str(lines)),), HeldOut(share=0))
    parts, read = corpus.sources[0].parts(), []
    documents = Local.documents
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Local, "documents", lambda self, part: (read.append(part), documents(self, part))[1])
        found = list(sample(corpus, 10_000, most_parts=8))
    assert len(read) <= 8 < len(parts) and {part in parts[: len(parts) // 2] for part in read} == {True, False}
    assert 4_000 < sum(len(text.encode()) for text in found) < 12_000


def test_the_text_is_cleaned_as_it_will_be_encoded(lines: Path):
    corpus = Corpus((Local(path=str(lines)),), HeldOut(share=0), Cleaning(normalize="nfc", min_length=60))
    found = list(sample(corpus, 10**9))
    assert all("é" in text and len(text) >= 60 for text in found) and len(found) == 900


def test_what_conversations_say_is_sampled(tmp_path: Path):
    turns = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "that."}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns}))
    assert list(sample(Corpus((Local(path=f"{tmp_path}/a.jsonl"),), HeldOut(share=0)), 100)) == ["what?\nthat."]


def test_packed_sources_count_by_what_they_hold(small_units, tmp_path: Path):
    """Texts alike, plain, packed as a whole, and as a packed column beside another: each gives the same share."""
    words = np.random.default_rng(1).choice(["nation", "people", "congress", "peace", "war", "law", "year"], (6000, 12))
    texts = [[f"{kind} {' '.join(line)}" for line in words] for kind in range(4)]
    lines = ["".join(json.dumps({"text": text}) + "\n" for text in own).encode() for own in texts]
    (tmp_path / "0.jsonl").write_bytes(lines[0])
    (tmp_path / "1.jsonl.gz").write_bytes(gzip.compress(lines[1]))
    (tmp_path / "2.jsonl.zst").write_bytes(zstd.compress(lines[2]))
    table = pyarrow.table({"text": texts[3], "noise": [os.urandom(90) for _ in words]})
    pyarrow.parquet.write_table(table, tmp_path / "3.parquet", compression="zstd", use_dictionary=False)
    sources = tuple(Local(path=str(path)) for path in sorted(tmp_path.iterdir()))
    files = [sum(part.size for part in source.parts()) for source in sources]
    assert files[1] < files[0] / 3 and files[2] < files[0] / 3 and files[3] > files[1] * 3
    found = list(sample(Corpus(sources, HeldOut(share=0)), 400_000))
    shares = [sum(len(text) for text in found if text[0] == str(kind)) for kind in range(4)]
    assert shares == pytest.approx([100_000] * 4, rel=0.1)
    sizes = [sum(content_sizes(source.parts())) for source in sources]
    assert sizes == pytest.approx([len(lines[0])] * 3 + [len("".join(texts[3]))], rel=0.1)
    whole = list(sample(Corpus(sources, HeldOut(share=0)), 10**9))
    assert whole == [text for own in texts for text in own]
