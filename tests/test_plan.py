"""`ingot plan`, and that every built-in recipe loads, plans, and makes a step."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingot.cli import run
from ingot.config.text import to_yaml
from ingot.errors import UserError
from ingot.estimate.devices import DEVICES, Device, find_device
from ingot.estimate.text import Text
from ingot.model.architecture import parameter_counts
from ingot.plan.plan import make_plan
from ingot.prepare import prepare
from ingot.recipe.files import builtin_recipes
from ingot.recipe.recipe import Recipe
from ingot.train.dry import dry_run
from ingot.train.past import Past, past

NAMES = [name for name in builtin_recipes() if not Recipe.load(name).start]  # the others go on from a run of one's own


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some made-up documents."""
    folder, draw = tmp_path_factory.mktemp("text"), random.Random(1)
    for number in range(30):
        words = draw.choices(["peace", "law", "of", "the", "people", "and", "great", "year"], k=draw.randint(50, 600))
        (folder / f"{number:02}.txt").write_text(" ".join(words))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_says_its_true_number_of_parameters(name: str):
    made = make_plan(Recipe.load(name), find_device("H200"))
    purpose = builtin_recipes()[name].read_text(encoding="utf-8").partition("\n")[0]
    if said := re.search(r"([\d.]+)([MB]) parameters", purpose):
        unit = {"M": 1e6, "B": 1e9}[said[2]]
        assert round(made.parameters["total"] / unit, len(said[1].partition(".")[2])) == float(said[1])
    else:
        assert name in ("demo", "shakespeare")


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_plans_and_fits_somewhere(name: str):
    made = make_plan(Recipe.load(name), find_device("H200"))
    assert made.fits and made.most_rows >= made.works[0].rows
    assert made.step_seconds[0] > 0
    if made.steps:
        assert made.loss and made.tokens and made.seconds


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("gpt2-medium-openwebtext-8gb", "RTX-3070"),
        ("gpt2-medium-openwebtext-16gb", "T4"),
        ("gpt2-medium-openwebtext-24gb", "L4"),
        ("gpt-24x1536-pile", "V100-16GB"),
    ],
)
def test_a_recipe_for_a_card_fits_that_card(name: str, device: str):
    assert make_plan(Recipe.load(name), DEVICES[device]).fits


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose speed is known."""
    slow = Device("a machine", "cpu", 16e9, {"fp32": 1e11})
    monkeypatch.setattr("ingot.train.dry.this_device", lambda device, precision: slow)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_makes_a_step(
    name: str, text: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sources = f"data.sources=[{{kind: local, path: {text}}}]"
    tokenizer = ["tokenizer={kind: bpe, vocabulary: 300}", "model.vocabulary=0"]
    recipe = Recipe.load(name, [sources, *tokenizer, "train.precision=fp32"])
    dry_run(recipe, longest=0)
    said = capsys.readouterr().out
    arch = recipe.model.with_vocabulary(300)
    assert f"model: {parameter_counts(arch)['total']:,} parameters" in said
    assert said.endswith("dry run: all is well; nothing was kept\n")
    assert not list(tmp_path.iterdir())


def test_a_plan_needs_no_pytorch_for_a_named_device():
    verb = "run(['plan', 'modern-tiny', '--device', 'T4'])"
    code = f"from ingot.cli import run; import sys; {verb}; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.endswith("False\n")


def test_what_is_printed(capsys: pytest.CaptureFixture[str]):
    assert run(["plan", "gpt2-medium-openwebtext", "--device", "T4", "--price", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "354,823,168: embedding 51.5M" in said
    assert "it does not fit" not in said  # auto takes fewer rows
    for name in ("FLOPs", "memory", "time", "cost", "disk", "loss"):
        assert re.search(rf"^{name} ", said, re.MULTILINE)


def test_the_cost_is_hours_times_devices_times_price():
    made = make_plan(Recipe.load("modern-tiny"), find_device("T4"), ranks=4)
    assert made.seconds and made.beside["start"]
    hours = (made.seconds + sum(made.beside.values())) / 3600
    assert made.cost(0.5) == pytest.approx(hours * 4 * 0.5)


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        (["train.duration=10M tokens", "model=small"], "tokens a parameter are few"),
        (["train.duration=1M tokens"], " steps teach little"),
        (["tokenizer.vocabulary=300000"], "of the parameters are the vocabulary's"),
        (["train.duration=9 epochs"], "9.0 epochs: after 4"),
        (["memory.micro_batch=64", "train.batch_tokens=1048576", "model=small"], "memory.micro_batch="),
        (["data.sources.0.target_tokens=1000000"], "tokens of text are few for a vocabulary of 32,768"),
    ],
)
def test_what_is_likely_a_mistake_is_said(overrides: list[str], warning: str):
    made = make_plan(Recipe.load("modern-tiny", overrides), find_device("T4"))
    assert any(warning in line for line in made.warnings)


@pytest.fixture
def here(text: Path, tmp_path: Path) -> list[str]:
    """The demo's recipe on made-up text, in a folder of its own."""
    places = [f"runs={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}"]
    return [f"data.sources=[{{kind: local, path: {text}}}]", "tokenizer.vocabulary=300", *places]


def test_what_is_prepared_is_counted_and_what_changed_since_is_not(
    here: list[str], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = Recipe.load("demo", here)
    files = sorted(text.glob("*.txt"))
    assert not make_plan(recipe, find_device("T4")).text.exact
    assert not list(tmp_path.iterdir())  # a plan makes nothing
    cache = prepare(recipe)
    for path in files:  # files changed just now are not remembered by their time
        os.utime(path, (1e9, 1e9))
    assert not make_plan(recipe, find_device("T4")).text.exact  # that would take reading them
    assert prepare(recipe).fingerprint == cache.fingerprint
    made = make_plan(recipe, find_device("T4"))
    assert made.text == Text(cache.train.tokens, cache.held_out.tokens, exact=True)
    assert not make_plan(Recipe.load("demo", [*here, "data.held_out.share=0.2"]), find_device("T4")).text.exact
    capsys.readouterr()
    assert run(["plan", "demo", *here, "--device", "T4"]) == 0
    assert f"epochs of {cache.train.tokens:,} tokens of text" in capsys.readouterr().out


MACHINE = {"device": "a machine", "cores": 2, "system": "Linux", "torch": "2.13"}


def past_run(recipe: Recipe, seconds: float, steps: int = 20, **start: Any) -> None:
    """The records of a run whose steps took so many seconds after the first, which took longer."""
    recipe.folder.mkdir(parents=True)
    settled = recipe.with_training(settled=f"{steps} steps for {recipe.train.duration}", compile="yes")
    (recipe.folder / "recipe.yaml").write_text(to_yaml(settled.with_memory(micro_batch=4)))
    begun = {"kind": "start", "step": 0, "time": 1.79e9, "machine": MACHINE, "precision": "fp32", "processes": 1}
    made = [{"kind": "train", "step": step, "seconds": 9 + step * seconds} for step in range(1, steps + 1)]
    lines = [json.dumps(record) + "\n" for record in (begun | start, *made)]
    (recipe.folder / "metrics.jsonl").write_text("".join(lines) + '{"kind": "tr')  # it is going on


def test_a_run_of_this_machine_tells_what_its_like_will_take(here: list[str]):
    recipe = Recipe.load("demo", here)
    past_run(recipe, 0.5)
    longer = Recipe.load("demo", [*here, "name=longer", "train.duration=20 minutes", "seed=3"])
    for like in (recipe, longer):
        known = past(like, MACHINE, "fp32", 1)
        assert known and known.run == "demo" and known.compiled
        assert known.step_seconds == pytest.approx((0.5,))
    made = make_plan(longer, Device("a machine", "cpu", 16e9, {"fp32": 1e11}), before=known)
    assert made.steps == 2400 and made.seconds == pytest.approx(1200) and made.beside["compilation"]
    busy = make_plan(longer, Device("a machine", "cpu", 16e9, {"fp32": 1e10}), before=known)
    assert busy.beside == made.beside  # what the device shows just now has no say


@pytest.mark.parametrize(
    ("overrides", "start", "steps"),
    [
        (["model.layers=3"], {}, 20),
        (["train.batch_tokens=8192"], {}, 20),
        (["memory.micro_batch=2"], {}, 20),
        (["train.compile=no"], {}, 20),
        ([], {"machine": MACHINE | {"cores": 4}}, 20),
        ([], {"precision": "bf16"}, 20),
        ([], {"processes": 2}, 20),
        ([], {}, 5),
    ],
)
def test_a_run_of_other_steps_or_elsewhere_or_too_short_tells_nothing(
    here: list[str], overrides: list[str], start: dict[str, Any], steps: int
):
    past_run(Recipe.load("demo", here), 0.5, steps, **start)
    assert past(Recipe.load("demo", [*here, *overrides]), MACHINE, "fp32", 1) is None


def test_the_first_recipe_of_all_is_no_mistake():
    known = Past("demo", "2026-11-22", True, (0.5,))
    made = make_plan(Recipe.load("demo"), Device("a machine", "cpu", 16e9, {"fp32": 1e11}), before=known)
    assert made.steps == 600 and not list(made.warnings)


def test_a_format_that_the_device_lacks_is_refused():
    with pytest.raises(UserError, match=r"T4 does not multiply in bf16; train\.precision=fp16 suits it"):
        make_plan(Recipe.load("modern-tiny", ["train.precision=bf16"]), find_device("T4"))


def test_text_that_nobody_knows_the_size_of_is_said(capsys: pytest.CaptureFixture[str]):
    overrides = ["data.sources=[{kind: hub, dataset: c4}]"]
    assert run(["plan", "modern-tiny", *overrides, "--device", "T4"]) == 0
    assert "nobody knows how much text yet: `ingot prepare` tells" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_a_step_of_the_whole_model_is_timed_beside_the_plan(text: Path, capsys: pytest.CaptureFixture[str]):
    shape = "model={family: llama, context: 32, layers: 2, hidden_size: 32, heads: 2}"
    overrides = [f"data.sources=[{{kind: local, path: {text}}}]", "tokenizer.vocabulary=300", "train.precision=fp32"]
    dry_run(Recipe.load("shakespeare", [shape, *overrides]))
    assert re.search(r"step: [\d.e-]+ seconds, planned as [\d.e-]+", capsys.readouterr().out)


@pytest.mark.usefixtures("quick")
def test_a_dry_run_without_a_hub_says_so_in_one_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="fineweb"):
        dry_run(Recipe.load("modern-tiny"), longest=0)
