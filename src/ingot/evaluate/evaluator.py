"""One model, and all that can be measured on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingot.config.check import validate
from ingot.data.loader import TokenBatch
from ingot.errors import UserError
from ingot.evaluate.bootstrap import exponential
from ingot.evaluate.loss import held_out_loss
from ingot.evaluate.quality import SAMPLING, quality
from ingot.evaluate.record import QualityRecord, SpeedRecord, TaskRecord
from ingot.evaluate.speed import speed
from ingot.evaluate.tasks.local import find
from ingot.evaluate.tasks.scoring import Examination
from ingot.evaluate.text import NATS, TOKENS, Document, Tally, document_scores
from ingot.generate.sampling import Sampling
from ingot.model.decoder import Decoder
from ingot.model.objective import IGNORED
from ingot.tokenizer.tokenizer import Tokenizer


class Evaluator:
    """Measures a model: `Evaluator(llm.model, llm.tokenizer)` of a loaded one, or `Evaluator.load("demo@best")`."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(cls, reference: str | Path, *, runs: Path | str = Path("runs")) -> Evaluator:
        """The evaluator of the model that `reference` means. Raises UserError as `ingot.load` does."""
        from ingot.language_model import load

        loaded = load(reference, runs=runs)
        return cls(loaded.model, loaded.tokenizer)

    def calculate_perplexity(self, loader: Iterable[Any]) -> tuple[float, float]:
        """Perplexity and loss, in nats a token, on all that `loader` gives.

        It may give texts, which are scored from their first token on; ids (B, T) or (T,), or mappings with `input_ids`
        and perhaps `labels` (-100: none) or `attention_mask`, as for transformers; pairs of inputs and targets (B, T);
        TokenBatches. Raises UserError where there is nothing to score.
        """
        nats = tokens = 0.0
        for one in loader:
            if isinstance(one, TokenBatch):
                found = held_out_loss(self.model, [one], torch.zeros(self.model.arch.vocabulary))
                nats, tokens = nats + found.nats, tokens + found.tokens
                continue
            scores = document_scores(self.model, self._documents(one), self._no_bytes, Tally())
            nats, tokens = nats + scores[:, NATS].sum(), tokens + scores[:, TOKENS].sum()
        if not tokens:
            raise UserError("there is no text to measure on", where="loader", mend="give texts, or batches of ids")
        loss = float(nats / tokens)
        return exponential(loss), loss

    def evaluate_generation_quality(self, prompts: Sequence[str], **sampling: Any) -> QualityRecord:
        """What the model writes after `prompts`: variety, repetition, length, how likely it is to the model itself.

        Options are those of `Sampling`; by default the model's own distribution, 128 tokens. Raises UserError.
        """
        settings = validate(Sampling, SAMPLING.to_dict() | sampling, where="sampling")
        ids = [[self.tokenizer.end, *self.tokenizer.encode(prompt)] for prompt in prompts]
        return quality(self.model, self.tokenizer, ids, source="given", sampling=settings)

    def benchmark_speed(self) -> list[SpeedRecord]:
        """Prefill and decode in tokens a second, and memory, of one text and of several at once."""
        return speed(self.model, self.tokenizer)

    def evaluate_tasks(self, tasks: Iterable[str], *, limit: int | None = None) -> list[TaskRecord]:
        """The scores in standard tasks by name, or in those of folders; `limit`: items of each, evenly spread."""
        examination = Examination(self.model, self.tokenizer)
        return [examination.score(benchmark, limit) for benchmark in find(tasks)]

    def comprehensive_evaluation(self, loader: Iterable[Any], prompts: Sequence[str]) -> dict[str, Any]:
        """All of the above but the tasks, as plain values: perplexity, loss, quality and speed."""
        perplexity, loss = self.calculate_perplexity(loader)
        return {
            "perplexity": perplexity,
            "loss": loss,
            "quality": self.evaluate_generation_quality(prompts).to_dict(),
            "speed": [one.to_dict() for one in self.benchmark_speed()],
        }

    @property
    def _no_bytes(self) -> Any:
        return np.zeros(max(self.model.arch.vocabulary, self.tokenizer.vocabulary), np.int64)

    def _documents(self, given: Any) -> Iterator[Document]:
        """What one thing that a loader gave is made of."""
        if isinstance(given, str):
            yield Document(np.array([self.tokenizer.end, *self.tokenizer.encode(given)]))
            return
        if isinstance(given, tuple | list) and len(given) == 2:
            inputs, targets = (np.atleast_2d(np.asarray(part)) for part in given)
            for row, of in zip(inputs, targets, strict=True):
                yield Document(np.append(row[:1], np.maximum(of, 0)), np.append(False, of != IGNORED))
            return
        values = given if isinstance(given, Mapping) else {"input_ids": given}
        if not isinstance(values.get("input_ids"), Tensor | np.ndarray):
            raise UserError(f"a loader can't give {type(given).__name__}", where="loader", mend="give texts or ids")
        ids = np.atleast_2d(np.asarray(values["input_ids"]))
        labels = np.atleast_2d(np.asarray(values["labels"])) if "labels" in values else ids
        seen = np.atleast_2d(np.asarray(values["attention_mask"])) if "attention_mask" in values else np.ones_like(ids)
        for row, of, shown in zip(ids, labels, seen.astype(bool), strict=True):
            if shown.any():
                yield Document(row[shown], of[shown] != IGNORED)
