"""The package as a Python user meets it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ingot


def test_import_is_light():
    script = "import sys, ingot; print(ingot.__version__, *{'torch', 'numpy', 'pydantic', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [ingot.__version__]


@pytest.mark.parametrize("first", ["import ingot", "from ingot.train.run import train"])
def test_verbs_are_callable_whichever_way_their_modules_were_imported(first):
    script = (
        f"{first}; import ingot.train.run, ingot.prepare; from ingot import prepare as verb\n"
        "ingot.train.run.train = lambda recipe, *, fresh=False: ('trained', recipe, fresh)\n"
        "ingot.prepare.prepare = lambda recipe: ('prepared', recipe)\n"
        "print(ingot.train('r', fresh=True), ingot.prepare('r'), verb('r'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "('trained', 'r', True) ('prepared', 'r') ('prepared', 'r')", done.stderr


def test_the_recipe_is_at_hand_and_unknown_names_are_not():
    from ingot.recipe.recipe import Recipe

    assert ingot.Recipe is Recipe
    assert {"Recipe", "prepare", "train"} <= set(dir(ingot))
    with pytest.raises(AttributeError, match="ingto"):
        _ = ingot.ingto
