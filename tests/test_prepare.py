"""What `ingot prepare` prints: readable in a narrow terminal, one line each in a pipe, and the same words in both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingot.prepare import prepare
from ingot.recipe.recipe import Recipe

LONG = "a folder with a rather long name of several words"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Two sources, one of them with records that are dropped."""
    monkeypatch.chdir(tmp_path)
    for name in ("texts", LONG):
        (tmp_path / name).mkdir()
        rows = [json.dumps({"text": f"Number {number} of them all. " * 9}) for number in range(200)]
        (tmp_path / name / "some.jsonl").write_text("\n".join([*rows, *["broken"] * 9]))
    sources = [{"kind": "local", "path": name} for name in ("texts", LONG)]
    changes = [f"data.sources={json.dumps(sources)}", "tokenizer.vocabulary=300", "model.context=64"]
    return Recipe.load("demo", changes)


@pytest.mark.parametrize("width", [60, 80])
def test_the_report_fits_a_narrow_terminal_with_nothing_cut(recipe: Recipe, width: int, monkeypatch, capsys):
    prepare(recipe)
    capsys.readouterr()
    prepare(recipe)
    piped = capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if it were a terminal
    monkeypatch.setenv("COLUMNS", str(width))
    prepare(recipe)
    shown = capsys.readouterr().out
    assert all(len(line) <= width for line in shown.splitlines())
    assert shown.split() == piped.split()
    assert len(shown.splitlines()) > len(piped.splitlines())
    assert ": 200 documents, 10 held out\n" in shown
