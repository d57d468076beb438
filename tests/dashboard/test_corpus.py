"""What the page says about a run's text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ingot.dashboard.corpus import SOURCES, corpus
from ingot.dashboard.curves import chart_data
from ingot.dashboard.run import RunRecord
from ingot.data.prepare import prepare
from ingot.data.source import HeldOut, Local
from ingot.tokenizer.training import BPE


def told(records: list[dict[str, Any]]) -> RunRecord:
    return RunRecord.told(Path("runs/x"), records)


def rows(page: str) -> list[list[str]]:
    """The cells of each row of the page's tables, without their tags."""
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    return [[re.sub("<[^>]+>", "", cell).strip() for cell in row] for row in found]


@pytest.fixture
def report(tmp_path: Path) -> dict[str, Any]:
    """The report of a cache of two sources, with something left out of the second."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    for number in range(20):
        (one / f"{number:02}.txt").write_text("peace and law " * 30)
    (other / "a.jsonl").write_text('{"text": "the state"}\n{broken\n{"text": ""}\n{"text": "of union"}\n')
    sources = [Local(path=str(one)), Local(path=str(other), max_documents=1)]
    return prepare(sources, HeldOut(), BPE(vocabulary=300), tmp_path / "cache", lambda line: None)[1].report


def test_the_page_accounts_for_every_source_and_every_record(report: dict[str, Any]):
    page = corpus(told([{"kind": "start", "data": report, "rows": ["mixture: 1 <of> 2"], "train_tokens": 100}]))
    shown = rows(page)
    names = [source["name"] for source in report["sources"]]
    assert [row[0] for row in shown[1:3]] == [names[0], f"{names[1]} text field &#x27;text&#x27; up to its limit"]
    assert [row[1:3] for row in shown[1:3]] == [["20", "20"], ["1", "1"]]
    assert sum(float(row[5].rstrip("%")) for row in shown[1:3]) == pytest.approx(100, abs=0.2)
    dropped = {row[0].split(" /")[0]: row[1] for row in shown[4:]}
    assert dropped == {reason: str(entry["count"]) for reason, entry in report["dropped"].items()}
    assert "<p>Mixture: 1 &lt;of&gt; 2.</p>" in page
    assert f"<p>Held out: {report['held_out']['documents']} document" in page


@pytest.mark.parametrize(
    "data", [None, 3, [], {}, {"sources": 1}, {"sources": [2]}, {"dropped": {"x": 1}}, {"train": {"bytes": "x"}}]
)
def test_whatever_is_missing_or_odd_is_left_out(data: Any):
    assert "nan" not in corpus(told([{"kind": "start", "data": data, "rows": 5}]))


def test_nothing_in_the_report_becomes_markup_and_many_sources_stay_readable():
    payload = "</table><script>x</script>"
    source = {"name": payload, "instead_of": payload, "fields": [payload]}
    data = {"sources": [source] * 100, "dropped": {payload: {"count": 1, "examples": [payload]}}}
    page = corpus(told([{"kind": "start", "data": data, "rows": [payload]}]))
    assert "<script" not in page and page.count("</table>") == 2
    assert [row[0] for row in rows(page)][SOURCES + 1] == f"and {100 - SOURCES} more"


def test_what_the_machine_did_is_drawn():
    used = [{"kind": "system", "step": step, "cpu": 0.5, "memory_gb": step / 10} for step in (1, 2)]
    (run,) = chart_data([told(used)])["runs"]
    assert {series["label"]: list(series["value"]) for series in run["series"]} == {
        "process": [0.1, 0.2],
        "processors": [0.5, 0.5],
    }
