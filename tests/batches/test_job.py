"""Many prompts at once: read from files, finished in order, kept as they are finished, never lost."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingot.batches.job import Job
from ingot.batches.prompts import prompts_of, read_prompts
from ingot.cli import run
from ingot.errors import UserError
from ingot.generate.sampling import Sampling
from ingot.language_model import LanguageModel

SAMPLING = Sampling(seed=5, max_new_tokens=9)
PROMPTS = ["The", "quick brown", "fox " * 9, "東", "jumps, over", "the", "lazy", "dog"]


def job(llm: LanguageModel, sampling: Sampling = SAMPLING, prompts: list = PROMPTS) -> Job:
    return Job(llm, prompts_of(prompts), sampling)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", "One\n\n  \nTwo\r\n", ["One", "Two"]),
        ("a.txt", "\ufeffOne", ["One"]),
        ("a.txt", b"One\n\xff\xfe\n", r"a.txt:2: invalid UTF-8; save the file as UTF-8"),
        ("a.txt", "\n\n", "a.txt: there is no prompt in this file"),
        ("a.pdf", "One", r"a.pdf: prompts are not read from a .pdf; give .txt or .jsonl"),
        ("b.jsonl", '"One"\n{"prompt": "Two", "top_k": 3}\n', ["One", "Two"]),
        ("b.jsonl", '{"messages": [{"role": "user", "content": "Hi"}]}', ["Hi"]),
        ("b.jsonl", '{"prompt": "One"}\n{"prompt": ', "b.jsonl:2: not valid JSON"),
        ("b.jsonl", '{"promt": "One"}', "b.jsonl:1: there is no key 'promt'; did you mean 'prompt'?"),
        ("b.jsonl", '{"prompt": 3}', "b.jsonl:1: prompt: a prompt is a text"),
        ("b.jsonl", "[1]", "b.jsonl:1: a prompt is a text or a mapping"),
        ("b.jsonl", '{"top_k": 3}', "b.jsonl:1: a mapping needs a prompt or messages, one of the two"),
        ("b.jsonl", '{"messages": []}', "b.jsonl:1: messages: a conversation without messages"),
        ("b.jsonl", '{"messages": [{"role": "bot", "content": ""}]}', r"b.jsonl:1: messages\[0\]: the role 'bot'"),
        ("c.jsonl", None, "c.jsonl: the file can't be read"),
    ],
)
def test_a_file_of_prompts_is_read_or_says_where_it_is_wrong(tmp_path: Path, name: str, content, told):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if isinstance(told, list):
        assert [entry.prompt for entry in read_prompts(path)] == told
        return
    with pytest.raises(UserError, match=told.replace("?", r"\?")) as raised:
        read_prompts(path)
    assert "\n" not in str(raised.value)


def test_a_line_that_the_model_can_not_read_is_named_before_anything_is_done(llm: LanguageModel, tmp_path: Path):
    path, output = tmp_path / "in.jsonl", tmp_path / "out.json"
    path.write_text('"One"\n' + json.dumps({"prompt": "fox " * 300}))
    with pytest.raises(UserError, match=r"in.jsonl:2: the prompt has \d+ tokens"):
        Job(llm, read_prompts(path), SAMPLING).run(output)
    path.write_text('"One"\n{"prompt": "x", "temperature": "hot"}')
    with pytest.raises(UserError, match=r"in.jsonl:2: temperature: a number is needed"):
        Job(llm, read_prompts(path), SAMPLING)
    path.write_text('{"messages": [{"role": "user", "content": "' + "fox " * 300 + '"}]}')
    with pytest.raises(UserError, match=r"in.jsonl:1: the last message has \d+ tokens"):
        Job(llm, read_prompts(path), SAMPLING)
    assert not list(tmp_path.glob("*out*"))


def test_every_form_holds_all_texts_in_order(llm: LanguageModel, tmp_path: Path):
    made = job(llm).run()
    texts = [one.text for one in made]
    for suffix in ("json", "jsonl", "csv", "md", "txt"):
        job(llm).run(tmp_path / f"out.{suffix}")
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["text"] for row in rows] == texts and [row["prompt"] for row in rows] == PROMPTS
    assert rows[0] == {"prompt": "The", "text": texts[0], "reason": made[0].reason, "tokens": len(made[0].ids)}
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().split(b"\n") if line] == rows
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row | {"tokens": int(row["tokens"])} for row in csv.DictReader(file)] == rows
    whole = (tmp_path / "out.txt").read_bytes().decode()  # a text may hold any kind of line break
    assert whole == "\n\n---\n\n".join(prompt + text for prompt, text in zip(PROMPTS, texts, strict=True)) + "\n"
    sections = (tmp_path / "out.md").read_text().split("\n## ")
    assert len(sections) == len(PROMPTS) and "> quick brown" in sections[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"out.{s}" for s in ("csv", "json", "jsonl", "md", "txt")
    ]


def test_what_was_finished_is_not_made_again(llm: LanguageModel, tmp_path: Path, monkeypatch):
    output, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    whole = [one.text for one in job(llm).run()]
    completed = llm.generator.completed
    asked: list[int] = []

    def stopped(prompts, samplings):
        asked.append(len(prompts))
        for number, found in enumerate(completed(prompts, samplings)):
            if len(asked) < 3 and number == 3:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(llm.generator, "completed", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            job(llm).run(output)
        assert not output.exists()
    journal.write_bytes(journal.read_bytes()[:-7])  # the last line was cut short by a power cut
    assert [one.text for one in job(llm).run(output)] == whole
    assert asked == [8, 5, 3]
    assert [json.loads(line)["text"] for line in output.read_bytes().split(b"\n") if line] == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_log_probabilities_survive_an_interruption(llm: LanguageModel, tmp_path: Path, monkeypatch):
    sampling = SAMPLING.model_copy(update={"logprobs": 2})
    whole = job(llm, sampling).run()
    completed = llm.generator.completed

    def stopped(prompts, samplings):
        yield from list(completed(prompts, samplings))[:4]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(llm.generator, "completed", stopped)
        job(llm, sampling).run(tmp_path / "out.json")
    again = job(llm, sampling).run(tmp_path / "out.json")
    for one, other in zip(whole, again, strict=True):
        assert [token.id for token in one.tokens] == [token.id for token in other.tokens]
        for mine, its in zip(one.tokens, other.tokens, strict=True):  # rounded otherwise, in a batch of other rows
            assert (mine.reason, mine.logprob) == (its.reason, pytest.approx(its.logprob, abs=1e-4))
            assert dict(mine.alternatives) == pytest.approx(dict(its.alternatives), abs=1e-4)


def test_another_job_does_not_go_on_with_it(llm: LanguageModel, runs: Path, tmp_path: Path, monkeypatch):
    output = tmp_path / "out.json"

    def nothing(prompts, samplings):
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(llm.generator, "completed", nothing)
        job(llm).run(output)
    with pytest.raises(UserError, match=r"the output was begun with seed=5, not 6; give what it was begun with"):
        job(llm, Sampling(seed=6, max_new_tokens=9)).run(output)
    with pytest.raises(UserError, match="the output was begun with other prompts"):
        job(llm, prompts=["Another"]).run(output)
    with pytest.raises(UserError, match="the output was begun with model="):
        job(LanguageModel(llm.model, llm.tokenizer, runs / "plain/checkpoints/step-000007/model", name="x")).run(output)
    (tmp_path / "other.json.journal").write_text("my own notes\n")
    with pytest.raises(UserError, match="this is not what a job left behind"):
        job(llm).run(tmp_path / "other.json")
    assert (tmp_path / "other.json.journal").read_text() == "my own notes\n"
    job(llm).run(output)
    with pytest.raises(UserError, match=r"out.json: this file is there already; choose another name, or move it"):
        job(llm).run(output)
    with pytest.raises(UserError, match=r"results are not written as .pdf; give a name that ends in .json"):
        job(llm).run(tmp_path / "out.pdf")


def test_the_command_says_what_is_wrong_before_a_model_is_loaded(runs: Path, tmp_path: Path, capsys):
    for arguments, told in (
        (["--input", str(tmp_path / "no.txt")], "can't be read"),
        (["Once", "--input", "a.txt"], "prompts are given here and in a file"),
        (["Once", "--output", "a.doc"], "results are not written as .doc"),
    ):
        assert run(["generate", "tiny", *arguments, "--runs", str(runs)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1 and told in captured.err


def command(runs: Path, folder: Path) -> list[str]:
    source = folder / "in.txt"
    source.write_text("\n".join(f"The fox {number}" for number in range(60)))
    options = ["--input", str(source), "--output", str(folder / "out.json"), "--seed", "1", "--max-new-tokens", "12"]
    return ["generate", "tiny", *options, "--runs", str(runs)]


def test_a_killed_command_goes_on_and_comes_to_the_same(runs: Path, llm: LanguageModel, tmp_path: Path, capfd):
    arguments, journal = command(runs, tmp_path), tmp_path / "out.json.journal"
    process = subprocess.Popen([sys.executable, "-m", "ingot", *arguments])
    while not journal.exists() or journal.stat().st_size < 1500:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -9 and not (tmp_path / "out.json").exists()
    assert run(arguments) == 0
    told = capfd.readouterr()
    assert told.out == f"60 texts in {tmp_path / 'out.json'}\n" and "of 60 prompts are finished" in told.err
    whole = Job(llm, read_prompts(tmp_path / "in.txt"), Sampling(seed=1, max_new_tokens=12)).run()
    assert [row["text"] for row in json.loads((tmp_path / "out.json").read_text())] == [one.text for one in whole]


def test_an_interrupted_command_says_how_to_go_on(runs: Path, tmp_path: Path, monkeypatch, capfd):
    def interrupted(self, prompts, samplings):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("ingot.generate.generator.Generator.completed", interrupted)
    assert run(command(runs, tmp_path)) == 130
    told = " ".join(capfd.readouterr().err.split())
    assert told == "0 of 60 prompts are finished and kept; the same command goes on ingot: interrupted"
