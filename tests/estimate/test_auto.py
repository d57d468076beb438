from __future__ import annotations

import pytest

from ingot.errors import UserError
from ingot.estimate.auto import choose, is_auto
from ingot.estimate.devices import DEVICES, Device, find_device
from ingot.estimate.memory import fitting, largest, room, works
from ingot.model.memory import Work
from ingot.model.presets import SIZES
from ingot.recipe.recipe import Recipe


def auto(*overrides: str) -> Recipe:
    return Recipe.load("modern-tiny", ["model=auto", *overrides])


@pytest.mark.parametrize(
    ("name", "size", "optimizer", "again"),
    [
        ("H200", "large", "adamw", 1),
        ("H100", "medium", "adamw", 0),
        ("A100-40GB", "medium", "adamw", 0),
        ("RTX-4090", "medium", "adamw8bit", 1),
        ("T4", "small", "adamw", 0),
        ("RTX-3070", "small", "adamw8bit", 1),
    ],
)
def test_the_largest_that_fits_with_the_least_thrift(name: str, size: str, optimizer: str, again: int):
    device = find_device(name)
    chosen = choose(auto(), 32768, device, precision=device.precision)
    assert (chosen.size, chosen.recipe.optimizer.kind) == (size, optimizer)
    assert chosen.recipe.memory.checkpoint_every == again
    assert not is_auto(chosen.recipe)


@pytest.mark.parametrize("name", DEVICES)
def test_what_was_chosen_fits_and_the_next_larger_does_not(name: str):
    device = find_device(name)
    chosen = choose(auto(), 32768, device, precision=device.precision)

    def fits(recipe: Recipe) -> bool:
        def plan(blocks: int) -> list[Work]:
            return works(recipe, device, precision=device.precision, compiled=False, blocks=blocks)

        arch = recipe.model.with_vocabulary(32768)
        blocks = fitting(recipe, arch, plan, room(device), 1)
        return bool(blocks) and largest(recipe, arch, plan(blocks)).total <= room(device)

    assert fits(chosen.recipe)
    for larger in list(SIZES)[list(SIZES).index(chosen.size) + 1 :]:
        thrifty = ["memory.checkpoint_every=1", "optimizer={kind: adamw8bit}"]
        assert not fits(Recipe.load("modern-tiny", [f"model={larger}", *thrifty]))


def test_what_else_is_said_about_the_model_stays():
    asked = auto("model.mlp=geglu", "model.context=1024", "train.batch_tokens=65536")
    chosen = choose(asked, 32768, find_device("T4"), precision="fp16").recipe.model
    assert (chosen.mlp, chosen.context, chosen.layers) == ("geglu", 1024, SIZES["small"]["layers"])


def test_a_device_too_small_for_any_is_said():
    with pytest.raises(
        UserError, match=r"not even the model of size tiny fits the 1 GB of watch; give a smaller shape"
    ):
        choose(auto(), 32768, Device("watch", "cuda", 1e9, {"fp32": 1e9}), precision="fp32")
