"""lm-evaluation-harness with ingot's models: `lm_eval --model ingot --model_args ref=demo …`.

The harness finds the model by `ingot_lm_eval`, or once this module is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lm_eval.models  # noqa: F401  (its own models first: it looks for them only while none is known)
import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from ingot.evaluate.likelihood import Question, fitted, likelihoods
from ingot.evaluate.text import NATS, Document, Tally, document_scores
from ingot.generate.sampling import Sampling
from ingot.language_model import load

MOST_NEW = 256  # tokens that a task may have written where it does not say, as for the harness's own models


@register_model("ingot")
class Harnessed(TemplateLM):
    """A model by its reference: `ref=demo@best`, and `runs=FOLDER` where the runs lie elsewhere."""

    def __init__(self, ref: str, runs: str = "runs", batch_size: Any = None, **ignored: Any):
        """`batch_size` and what else the harness passes on are not needed. Raises UserError as `ingot.load` does."""
        super().__init__()
        self._loaded = load(ref, runs=Path(runs))
        self._model, self._tokens = self._loaded.model, self._loaded.tokenizer

    @property
    def eot_token_id(self) -> int:
        """The token that parts documents."""
        return self._tokens.end

    @property
    def max_length(self) -> int:
        """Tokens of the context."""
        return self._model.arch.context

    @property
    def tokenizer_name(self) -> str:
        """What tells tokenizers apart."""
        return self._tokens.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **ignored: Any) -> list[int]:
        """The ids of a text; none is added."""
        return self._tokens.encode(string)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the model's template spells it. Raises UserError where it refuses."""
        from ingot.chat.context import as_messages

        return self._loaded.template.render(as_messages(chat_history), add_generation_prompt)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **ignored: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood and greediness of each pair; those that share a context are read together."""
        together: dict[tuple[int, ...], list[int]] = {}
        for place, (_, context, _) in enumerate(requests):
            together.setdefault(tuple(context), []).append(place)
        owners = list(_each_question(together, requests, self.max_length))
        found: dict[int, tuple[float, bool]] = {}
        for number, answers in likelihoods(self._model, [question for question, _ in owners]):
            for place, answer in zip(owners[number][1], answers, strict=True):
                found[place] = (answer.logprob, answer.greedy)
                self.cache_hook.add_partial("loglikelihood", requests[place][0], found[place])
        return [found[place] for place in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows that do not overlap: the harness's own models let them overlap."""
        end = self._tokens.end
        texts = (Document(np.array([end, *self._tokens.encode(request.args[0])])) for request in requests)
        scores = iter(document_scores(self._model, texts, np.zeros(self._model.arch.vocabulary, np.int64), Tally()))
        return [-float(next(scores)[NATS]) if self._tokens.encode(request.args[0]) else 0.0 for request in requests]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to one of the strings that it is to end with."""
        prompts, samplings = [], []
        for request in requests:
            context, asked = request.args
            stops = asked.get("until") or []
            new = min(int(asked.get("max_gen_toks", MOST_NEW)), self.max_length - 1)
            temperature = float(asked.get("temperature", 0.0)) if asked.get("do_sample") else 0.0
            stop = [stops] if isinstance(stops, str) else list(stops)
            samplings.append(Sampling(temperature=temperature, max_new_tokens=new, stop=[one for one in stop if one]))
            prompts.append((self._tokens.encode(context) or [self._tokens.end])[-(self.max_length - new) :])
        return [one.text for one in self._loaded.generator.complete(prompts, samplings)]


def _each_question(
    together: dict[tuple[int, ...], list[int]], requests: Sequence[Any], context: int
) -> Iterator[tuple[Question, list[int]]]:
    """Each question with the places of its answers among the requests."""
    for tokens, places in together.items():
        parts = fitted(Question(tokens, [requests[place][2] for place in places]), context)
        whole = len(parts) == 1
        yield from ((part, places if whole else [place]) for part, place in zip(parts, places, strict=not whole))
