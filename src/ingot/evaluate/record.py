"""What an evaluation found, as it is kept: `runs/<name>/evaluations/*.json`. The one place that says its shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ingot.config.config import Config
from ingot.errors import UserError
from ingot.files import make_folder, write_atomically

FOLDER = "evaluations"  # inside a run's folder
FORMAT = 1


class Measure(Config):
    """A figure and its 95% interval; none where there is nothing to measure, or no telling how sure it is."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Account(Config):
    """What became of all documents, or items, that were there: read + all that were skipped = found."""

    found: int
    read: int
    skipped: dict[str, int] = {}
    """how many, by reason"""


class ModelRecord(Config):
    """What was evaluated."""

    reference: str
    fingerprint: str
    """SHA-256 over weights, shape and tokenizer"""
    parameters: int
    context: int
    """tokens"""
    run: str = ""
    """its run's name; empty for a model of elsewhere"""
    step: int | None = None


class TextRecord(Config):
    """How well a text is predicted, each document from its first token, in windows of the context side by side.

    Intervals are over documents, bootstrapped.
    """

    source: str
    documents: Account
    tokens: int
    """scored, each once"""
    bytes: int
    """that they stand for; 0: the tokenizer loses text, so there are no bits per byte"""
    window: int
    """tokens that a token is at most predicted from; windows do not overlap"""
    loss: Measure
    """nats a token"""
    perplexity: Measure
    bits_per_byte: Measure
    top1: Measure
    """share of the tokens that were the likeliest one"""
    top5: Measure


class TaskRecord(Config):
    """The score in one task; intervals are over items, Wilson's for shares of right answers, else bootstrapped."""

    task: str
    kind: str
    """multiple_choice, cloze, exact_match or perplexity"""
    source: str
    """where items and prompt come from"""
    items: Account
    truncated: int = 0
    """items whose beginning was left out, because the context did not hold it"""
    chance: float | None = None
    """score of guessing; none where there is nothing to guess among"""
    metrics: dict[str, Measure]
    """acc, acc_norm (log-likelihood per character), acc_bytes (per byte), perplexity, exact_match, …"""
    primary: str
    """the metric to compare by"""


class WritingRecord(Config):
    """Properties of some texts of the same length."""

    texts: int
    tokens: Measure
    """of a text"""
    distinct: dict[str, float]
    """different n-grams as a share of all, over all texts, by n"""
    repetition: Measure
    """share of a text's 4-grams that stood in it before"""
    perplexity: Measure
    """of the text to the model itself, given the prompt"""
    copied: Measure
    """tokens of the longest stretch of a text that stands word for word in the training data; 0: shorter than `seed`"""


class QualityRecord(Config):
    """What the model writes, beside how real texts go on from the same prompts where these are known."""

    prompts: str
    """where they are from"""
    sampling: dict[str, Any]
    written: WritingRecord
    real: WritingRecord | None = None
    seed: int
    """tokens of the shortest stretch that counts as copied"""
    searched_tokens: int
    """of the training data; 0: it is not known"""
    longest_copy: str = ""
    """the longest stretch copied"""
    samples: list[tuple[str, str]] = []
    """some prompts and what was written"""


class SpeedRecord(Config):
    """Generation of `batch` texts at once: prompts of `prompt` tokens, then one token after another."""

    batch: int
    prompt: int
    prefill: float
    """prompt tokens a second"""
    decode: float
    """tokens a second, all texts together"""
    memory_bytes: int
    """of weights and of keys and values, computed"""


class Evaluation(Config):
    """All that one evaluation found. A part that was not asked for, or was not possible, is empty or none."""

    format: int = FORMAT
    model: ModelRecord
    created: str
    """ISO 8601"""
    code: str
    """version of ingot"""
    machine: dict[str, Any]
    precision: str
    text: list[TextRecord] = []
    tasks: list[TaskRecord] = []
    quality: QualityRecord | None = None
    speed: list[SpeedRecord] = []
    peak_memory_bytes: int | None = None
    """of the process or the GPU, at most, until the end of the evaluation"""
    notes: list[str] = Field(default_factory=list)
    """what could not be measured, and why"""

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, run: Path) -> Path:
        """Keep it beside the run, and return where. Raises UserError for a disk that is full or not writable."""
        stamp = "".join(letter for letter in self.created[:19] if letter.isalnum())
        step = f"step-{self.model.step or 0:06d}"
        folder = run / FOLDER
        make_folder(folder)
        path, number = folder / f"{step}-{stamp}.json", 2
        while path.exists():
            path, number = folder / f"{step}-{stamp}-{number}.json", number + 1
        write_atomically(path, self.to_json())
        return path

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """The evaluation in a file. Raises UserError for a file that is none."""
        try:
            return cls.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError, ValidationError):
            raise UserError(
                "no evaluation can be read here", where=str(path), mend="evaluate the model again"
            ) from None


def evaluations(run: Path) -> list[Evaluation]:
    """The evaluations kept beside a run that can be read, the oldest first."""
    found = []
    for path in sorted((run / FOLDER).glob("*.json")):
        try:
            found.append(Evaluation.read(path))
        except UserError:  # of another version, or damaged: the others are worth showing
            continue
    return sorted(found, key=lambda one: one.created)
