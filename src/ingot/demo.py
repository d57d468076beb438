"""The job behind `ingot demo`: a model raised from speeches, then taught to talk, in minutes, on any machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ingot.checkpoint.store import Checkpoints
from ingot.recipe.recipe import Recipe
from ingot.terminal import plain_console

CHAT = "chat."  # begins an override of the second part's recipe
SHARED = ("model", "runs=", "cache=")  # begin those that both parts take


def demo(overrides: Sequence[str] = ()) -> None:
    """Train the recipe `demo`, then `demo-chat`, or go on with them, and show some answers. Raises UserError.

    An override such as `chat.train.duration=…` is of the second. What is finished is not made again.
    """
    recipe, talking = recipes(overrides)  # before PyTorch is loaded, so that a mistake is told at once
    from ingot.train.run import train

    console = plain_console()
    console.print(
        "ingot raises a small language model from 235 years of State of the Union speeches: it learns its tokenizer, "
        f"trains for {recipe.train.duration}, and then learns to answer from chats between people, "
        f"for {talking.train.duration}.\nCtrl-C saves; the same command goes on.\n",
    )
    train(recipe)
    console.print("\nNow it learns to talk.\n")
    train(_started(talking, recipe))
    for question, answer in answers(talking.folder):
        console.print(f"\n> {question}\n{answer}", soft_wrap=True)
    console.print(f"\nThis is what minutes on one machine make. Talk with it: ingot chat {talking.name}")


def recipes(overrides: Sequence[str]) -> tuple[Recipe, Recipe]:
    """The recipes of both parts: the second has the first one's name, folders and model. Raises UserError."""
    own = [one.removeprefix(CHAT) for one in overrides if one.startswith(CHAT)]
    others = [one for one in overrides if not one.startswith(CHAT)]
    first = Recipe.load("demo", others)
    shared = [one for one in others if one.startswith(SHARED)]
    return first, Recipe.load("demo-chat", [*shared, f"name={first.name}-chat", *own])


def answers(folder: Path) -> list[tuple[str, str]]:
    """What the model of a run answered last: questions and answers."""
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    last = samples[-1]["step"] if samples else 0
    return [(one["prompt"], one["text"].strip()) for one in samples if one["step"] == last]


def _started(talking: Recipe, first: Recipe) -> Recipe:
    """`talking` from the first run's best checkpoint, or from its last one where no loss was measured."""
    which = "best" if Checkpoints(first.folder).best() else "latest"
    return talking.model_copy(update={"start": f"{first.name}@{which}"})
