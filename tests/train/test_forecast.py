from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ingot.distributed import World
from ingot.estimate.devices import Device
from ingot.model.presets import SIZES
from ingot.recipe.recipe import Recipe
from ingot.train.forecast import sized
from ingot.train.run import train

Tiny = Callable[..., Path]


def on(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    device = Device("a machine", "cpu", gigabytes * 1e9, {"fp32": 1e11})
    monkeypatch.setattr("ingot.train.forecast.this_device", lambda device_, precision: device)


def test_the_end_of_a_run_says_what_was_planned(tiny: Tiny, capsys: pytest.CaptureFixture[str]):
    train(Recipe.load(tiny(duration="12 steps")))
    said = capsys.readouterr().out
    time = r"[\d.]+ (seconds|minutes)"
    assert re.search(rf"took {time}, forecast by its first steps: {time}; memory [\d.]+ .B, planned: [\d.]+ .B", said)


def test_the_size_is_chosen_for_the_device_and_said(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    recipe = Recipe.load(tiny(), ["model={kind: auto, context: 32}", "optimizer=adamw"])
    lines: list[str] = []
    layers = []
    for gigabytes in (1.5, 6):
        on(monkeypatch, gigabytes)
        layers.append(sized(recipe, World.alone("cpu"), lines.append).model.layers)
    assert layers == [SIZES["tiny"]["layers"], SIZES["small"]["layers"]]
    assert lines[0].startswith("model: tiny") and "because small does not fit" in lines[0]


def test_a_run_keeps_the_size_that_it_was_begun_with(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SIZES, "tiny", {"layers": 3, "hidden_size": 32, "heads": 2, "kv_heads": 1, "mlp_size": 64})
    auto = ["model={kind: auto, context: 32}", "optimizer=adamw", "evaluation.every=never", "samples.every=never"]
    on(monkeypatch, 1.5)
    folder = train(Recipe.load(tiny(batch_tokens=32, duration="1 steps"), auto))
    on(monkeypatch, 64)
    train(Recipe.load(tiny(batch_tokens=32, duration="2 steps"), auto))
    assert Recipe.load(folder / "recipe.yaml").model.layers == SIZES["tiny"]["layers"]
    assert (folder / "checkpoints" / "step-000002").is_dir()
