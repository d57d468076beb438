"""The command line as a user meets it: one line for a mistake, the right exit status, no traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace
from typing import NoReturn, get_type_hints

import pytest

from ingot.chat.context import DEFAULTS
from ingot.cli import chatting, generating, run, serving
from ingot.cli.sampling import ChatOptions, SamplingOptions
from ingot.config.explain import explain
from ingot.data.corpora import CORPORA
from ingot.errors import Stopped, UserError
from ingot.generate.sampling import Sampling
from ingot.generate.token import Generation
from ingot.generate.weights import Quantize
from ingot.recipe.recipe import Recipe


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian", "demo"], "did you mean 'train'?"),
        (["recipes", "lst"], "did you mean 'list'?"),
        (["models", "shwo", "demo"], "did you mean 'show'?"),
        (["plan", "demo", "--devices", "0"], "--devices. Must be > 0"),
        (["dashboard", "--port", "99999"], "--port. Must be <= 65535"),
        (["recipes", "show", "demo", "train.duration=20"], "'20' is no duration; write one as '300 steps'"),
        (["recipes", "show", "demo", "train.save_every=20"], "'20' is no rhythm; write it as '100 steps'"),
        (["--halp"], "did you mean '--help'?"),
        (["train", "demo", "--frsh"], "Did you mean --fresh?"),
        (["generate", "demo", "--temprature", "1"], "Did you mean --temperature?"),
        (["generate", "demo", "--temperature", "warm"], "--temperature"),
        (["generate", "demo", "--temperature", "-1"], "temperature"),
        (["train"], "train needs RECIPE"),
        (["recipes", "list", "demo"], "'demo'"),
        (["recipes", "show", "dmo"], "did you mean 'demo'?"),
        (["recipes", "show", "demo", "model.layres=2"], "did you mean 'layers'?"),
        (["recipes", "show", "demo", "model.layers=two"], "model.layers"),
        (["recipes", "show", "demo", "layers"], "key=value"),
        (["recipes", "explain", "optimiser"], "did you mean 'optimizer'?"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
        (["generate", "nothing", "--runs", "nowhere"], "nothing"),
        (["generate", "Once upon a time " * 30, "--runs", "nowhere"], "there is no model 'Once upon"),
        (["generate", "demo", "--seed", "9223372036854775808"], "seed: input should be less than"),
        (["train", "demo", "--model.layers", "8"], "a recipe's keys have no dashes: model.layers=8"),
        (["recipes", "show", "demo", "--seed=3"], "a recipe's keys have no dashes: seed=3"),
        (["demo", "--train.duration"], "a recipe's keys have no dashes: train.duration=…"),
        (["generate", "demo", "--model.layers", "8"], "see `ingot generate --help`"),
        (["recipes", "show", "demo", "model.layers=two"], "ingot: command line: model.layers=two: a whole number"),
        (["generate", "nothing", "--runs", "nowhere"], "no run in 'nowhere' has a checkpoint"),
        (["prepare", "demo", "cache=/dev/null/x"], "this place can't be written to"),
        (["recipes", "show", "demo", "model.layers.foo=1"], "has no keys below it"),
        (["recipes", "show", "demo", "optimizer={kind: [a]}"], "there is no optimizer of kind"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_exits_with_2(arguments, told, capsys):
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ingot: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err


def test_what_is_shown_reads_back_as_the_same_recipe(tmp_path, capsys):
    assert run(["recipes", "show", "demo", "model.layers=2"]) == 0
    shown = capsys.readouterr().out
    path = tmp_path / "shown.yaml"
    path.write_text(shown, encoding="utf-8")
    assert run(["recipes", "show", str(path)]) == 0
    assert capsys.readouterr().out == shown
    assert "layers: 2" in shown


def test_explain_keeps_to_the_keys_asked_for(capsys):
    assert run(["recipes", "explain", "train."]) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert heads and all(line.startswith("train.") for line in heads)


def test_explain_writes_defaults_as_a_recipe_would(capsys):
    assert run(["recipes", "explain"]) == 0
    shown = capsys.readouterr().out
    heads = [line for line in shown.splitlines() if not line.startswith(" ")]
    assert not re.search(r"\b(True|False|None)\b|\(\d|\('", "\n".join(heads))


@pytest.mark.parametrize("verb", ["explain", "corpora"])
def test_what_is_not_read_in_a_terminal_is_as_wide_as_a_page_and_whole(verb, capsys):
    assert run(["recipes", verb]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 100 and line == line.rstrip() for line in shown.splitlines())
    meanings = [key.meaning for key in explain(Recipe)] if verb == "explain" else [one.note for one in CORPORA.values()]
    whole = " ".join(shown.split()).lower()
    assert all(" ".join(meaning.split()).lower() in whole for meaning in meanings)


def test_a_generate_option_that_does_not_fit_is_not_sent_to_the_recipes(capsys):
    assert run(["generate", "demo", "--temperature", "-1"]) == 2
    assert "recipes" not in capsys.readouterr().err


def test_generate_has_the_defaults_of_sampling():
    assert SamplingOptions().sampling("generate") == Sampling()
    assert ChatOptions().sampling("chat") == Sampling(**DEFAULTS)


class Echo:
    """Stands for a generator: continues any prompt but an overlong one."""

    def stream(self, prompt, sampling):
        if len(prompt) > 9:
            raise UserError("the prompt is too long")
        yield from (" and", " so", " on")

    def generate(self, prompts, sampling):
        return [Generation(prompt, "".join(self.stream(prompt, sampling)), (), "length") for prompt in prompts]


@pytest.mark.parametrize(
    ("prompts", "written"),
    [
        ([], " and so on\n"),
        (["One"], "One and so on\n"),
        (["One", "Two"], "One and so on\n\n---\n\nTwo and so on\n"),
    ],
)
def test_generate_writes_prompt_and_continuation(prompts, written, monkeypatch, capsys):
    monkeypatch.setattr(generating, "_load", lambda reference, runs, quantize: SimpleNamespace(generator=Echo()))
    assert run(["generate", "demo", *prompts]) == 0
    assert capsys.readouterr().out == written


def test_a_prompt_that_is_refused_is_not_written(monkeypatch, capsys):
    monkeypatch.setattr(generating, "_load", lambda reference, runs, quantize: SimpleNamespace(generator=Echo()))
    assert run(["generate", "demo", "far too long"]) == 2
    assert capsys.readouterr() == ("", "ingot: the prompt is too long\n")


def test_every_verb_that_writes_text_reads_weights_in_every_format():
    for verb in (generating.generate, chatting.chat, serving.serve):
        assert get_type_hints(verb)["quantize"] == Quantize | None


def test_a_missing_model_is_told_before_a_missing_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.metadata.distribution", missing)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for arguments in (["evaluate", "nothing", "--tasks", "piqa"], ["serve", "nothing"]):
        assert run([*arguments, "--runs", str(tmp_path)]) == 2
        assert capsys.readouterr().err.startswith("ingot: there is no model 'nothing'")


def missing(name: str) -> NoReturn:
    raise metadata.PackageNotFoundError(name)


def test_ctrl_c_is_how_a_dashboard_ends(tmp_path, monkeypatch, capsys):
    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr("ingot.dashboard.server.Dashboard.serve_forever", interrupted)
    assert run(["dashboard", "--runs", str(tmp_path), "--port", "0"]) == 130
    said = capsys.readouterr()
    assert said.out.endswith("\nstopped\n") and said.err == ""


@pytest.mark.parametrize(("end", "said"), [(KeyboardInterrupt, "ingot: interrupted\n"), (Stopped, "")])
def test_a_ctrl_c_exits_with_130_and_is_answered_once(end, said, monkeypatch, capsys):
    def demo(*_):
        raise end

    monkeypatch.setattr("ingot.demo.demo", demo)
    assert run(["demo"]) == 130
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "arguments",
    [
        *(["train", "dmo"], ["demo", "model.layres=2"], ["prepare", "dmo"], ["train", "demo", "model.heads=5"]),
        *(["generate", "nothing", "--runs", "nowhere"], ["generate", "demo", "--temperature", "-1"]),
        ["bench", "train", "--seconds", "soon"],
    ],
)
def test_a_mistake_is_told_before_pytorch_is_loaded(arguments):
    script = f"import sys; from ingot.cli import run; sys.exit(run({arguments}) != 2 or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_preparing_does_without_pytorch(tmp_path):
    (texts := tmp_path / "texts").mkdir()
    for number in range(40):
        (texts / f"{number}.txt").write_text(f"Text {number} of forty.")
    arguments = ["prepare", "demo", f"data.sources=[{{kind: local, path: {texts}}}]", f"cache={tmp_path / 'cache'}"]
    script = f"import sys; from ingot.cli import run; sys.exit(run({arguments}) != 0 or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m ingot recipes explain | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout == "name  str needed\n"
    assert done.stderr == ""
