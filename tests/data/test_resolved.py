from __future__ import annotations

from pathlib import Path

import pytest

from ingot.data.build import build
from ingot.data.build.plan import Corpus
from ingot.data.hub import Hub
from ingot.data.resolved import resolve
from ingot.data.source import HeldOut, Local
from ingot.errors import UserError
from ingot.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, texts: Path) -> list[Hub]:
    """The sources of the kind hub that were asked what they are; a folder stands in for each."""
    found: list[Hub] = []

    def stand_in(self, say):
        found.append(self)
        say("the folder stands in")
        return Local(path=str(texts), max_documents=self.max_documents)

    monkeypatch.setattr(Hub, "resolve", stand_in)
    return found


def test_the_outside_world_is_asked_once(asked: list[Hub], texts: Path, tmp_path: Path):
    said: list[str] = []
    source = Hub(dataset="some/text", weight=1, fallback=[Local(path=str(texts))])
    found = [
        resolve([one], tmp_path, said.append)[0]
        for one in (source, source, source.model_copy(update={"weight": 2, "max_documents": 7, "patience": 9}))
    ]
    assert len(asked) == len(said) == 1
    assert [(one.kind, one.weight, one.max_documents) for one in found] == [
        *(("local", 1, None), ("local", 1, None), ("local", 2, 7))
    ]
    resolve([Hub(dataset="other/text")], tmp_path, said.append)
    assert len(asked) == 2


def test_a_source_with_nothing_to_settle_leaves_no_trace(texts: Path, tmp_path: Path):
    source = Local(path=str(texts))
    assert resolve([source], tmp_path, print) == (source,)
    assert not list((tmp_path / "resolved").glob("*.json"))


def test_files_are_looked_for_before_the_outside_world_is_asked(asked: list[Hub], tmp_path: Path):
    with pytest.raises(UserError, match=f"^{tmp_path}/nowhere: there is no such file or folder"):
        resolve([Hub(dataset="some/text"), Local(path=f"{tmp_path}/nowhere")], tmp_path, print)
    assert not asked


def test_a_damaged_answer_is_named(asked: list[Hub], tmp_path: Path):
    resolve([Hub(dataset="some/text")], tmp_path, str)
    [file] = (tmp_path / "resolved").glob("*.json")
    file.write_text("{")
    with pytest.raises(UserError, match=f"{file}: this file is damaged; remove it"):
        resolve([Hub(dataset="some/text")], tmp_path, str)


def test_the_report_says_what_stood_in(asked: list[Hub], texts: Path, tokenizer: Tokenizer, tmp_path: Path):
    sources = (Hub(dataset="some/text"),)
    corpus = Corpus(resolve(sources, tmp_path, str), HeldOut(), asked=sources)
    cache = build(corpus, tokenizer, tmp_path)
    assert cache.report["sources"][0]["instead_of"] == "some/text"
    assert [source["identity"]["kind"] for source in cache.sources] == ["local"]
