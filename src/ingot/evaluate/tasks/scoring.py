"""A model's score in a task: every item asked once, in batches, and the answers counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ingot.evaluate.bootstrap import exponential, mean, share
from ingot.evaluate.likelihood import Likelihood, Question, encode_pairs, fitted, likelihoods
from ingot.evaluate.record import Measure, TaskRecord
from ingot.evaluate.tasks.answers import Answers, digest
from ingot.evaluate.tasks.benchmark import Benchmark
from ingot.evaluate.tasks.task import ExactMatch, Item, MultipleChoice, Text
from ingot.evaluate.text import Document, Tally, score_text
from ingot.generate.generator import Generator
from ingot.generate.sampling import Sampling
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

Progress = Callable[[int, int], None]  # items done, of how many


def _silent(done: int, of: int) -> None:
    pass


class Examination:
    """One model that is scored in tasks. Its answers are kept in `answers`."""

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, answers: Answers | None = None, progress: Progress = _silent
    ):
        self.model, self.tokenizer, self.progress = model, tokenizer, progress
        self.answers = answers or Answers()
        self.truncated = 0

    def score(self, benchmark: Benchmark, limit: int | None = None) -> TaskRecord:
        """The score in a task, or on `limit` items evenly spread. Raises UserError for a task without records."""
        tally = Tally()
        items = benchmark.items(tally, limit)
        self.truncated = 0
        task = benchmark.task
        if isinstance(task, Text):
            metrics, chance = self._text(items, tally), None
        elif isinstance(task, ExactMatch):
            metrics, chance = self._written(task, items, tally), None
        else:
            metrics, chance = self._chosen(items, tally, choose=isinstance(task, MultipleChoice))
        return TaskRecord(
            task=benchmark.name,
            kind=task.kind,
            source=benchmark.source,
            items=tally.account,
            truncated=self.truncated,
            chance=chance,
            metrics=metrics,
            primary=benchmark.primary,
        )

    def likelihoods_of(self, items: Sequence[Item], tally: Tally) -> list[tuple[Item, list[Likelihood]]]:
        """The log-likelihood of each item's answers; items of which an answer can't be scored are skipped."""
        pairs = [item.pairs for item in items]
        encoded = iter(encode_pairs(self.tokenizer, [pair for each in pairs for pair in each]))
        usable: list[tuple[Item, list[Question], str]] = []
        for item, each in zip(items, pairs, strict=True):
            found = [next(encoded) for _ in each]
            try:
                questions = self._questions(found)
            except ValueError as error:
                tally.skip(str(error))
                continue
            usable.append((item, questions, digest(found)))
        self._ask([one for one in usable if one[2] not in self.answers], known=len(usable))
        return [(item, [Likelihood(*pair) for pair in self.answers[asked]]) for item, _, asked in usable]

    def _questions(self, encoded: Sequence[tuple[list[int], list[int]]]) -> list[Question]:
        """One question where all answers follow the same context, else one for each; cut to the model's context."""
        if not all(answer for _, answer in encoded):
            raise ValueError("an answer without a token of its own")
        alike = all(context == encoded[0][0] for context, _ in encoded)
        together = [Question(encoded[0][0], [answer for _, answer in encoded])]
        apart = [Question(context, [answer]) for context, answer in encoded]
        whole = together if alike else apart
        cut = [part for question in whole for part in fitted(question, self.model.arch.context)]
        self.truncated += cut != whole
        return cut

    def _ask(self, asked: Sequence[tuple[Item, list[Question], str]], known: int) -> None:
        """Score what is not known yet, and keep each item's answers as soon as all of them are there."""
        questions = [question for _, each, _ in asked for question in each]
        owner = [number for number, (_, each, _) in enumerate(asked) for _ in each]
        first = np.cumsum([0, *(len(each) for _, each, _ in asked)]).tolist()
        found: dict[int, list[Likelihood]] = {}
        left = [len(each) for _, each, _ in asked]
        done = known - len(asked)
        for place, answers in likelihoods(self.model, questions):
            found[place] = answers
            number = owner[place]
            left[number] -= 1
            if not left[number]:
                own = [one for part in range(first[number], first[number + 1]) for one in found.pop(part)]
                self.answers.keep(asked[number][2], [[one.logprob, one.greedy] for one in own])
                done += 1
                self.progress(done, known)

    def _chosen(self, items: Sequence[Item], tally: Tally, *, choose: bool) -> tuple[dict[str, Measure], float | None]:
        """Metrics and the score of guessing: the likeliest of several answers, or the only one word for word."""
        scored = self.likelihoods_of(items, tally)
        if not choose:
            exact = np.array([found[0].greedy for _, found in scored], bool)
            nats = np.array([-found[0].logprob for _, found in scored])
            return {"acc": share(exact), "perplexity": mean(nats, exponential)}, None
        lengths: dict[str, Callable[[str], int]] = {
            "acc": lambda choice: 1,
            "acc_norm": len,
            "acc_bytes": lambda choice: len(choice.encode()),
        }
        metrics = {}
        for name, length in lengths.items():
            chosen = [
                int(np.argmax([one.logprob / length(choice) for one, choice in zip(found, item.choices, strict=True)]))
                for item, found in scored
            ]
            right = [one == item.gold for one, (item, _) in zip(chosen, scored, strict=True)]
            metrics[name] = share(np.array(right, bool))
        chances = [1 / len(item.choices) for item, _ in scored]
        return metrics, float(np.mean(chances)) if chances else None

    def _written(self, task: ExactMatch, items: Sequence[Item], tally: Tally) -> dict[str, Measure]:
        """Greedy continuations of all contexts, compared with what has to come out."""
        sampling = Sampling(temperature=0, max_new_tokens=task.max_new_tokens, stop=task.stop)
        room = self.model.arch.context - task.max_new_tokens
        prompts: list[tuple[Item, list[int], str]] = []
        for item in items:
            ids = self.tokenizer.encode(item.contexts[0]) or [self.tokenizer.end]
            if room < 1:
                tally.skip("the context does not hold the answer")
                continue
            self.truncated += len(ids) > room
            ids = ids[-room:]
            prompts.append((item, ids, digest([ids, sampling.to_dict()])))
        missing = [one for one in prompts if one[2] not in self.answers]
        generator = Generator(self.model, self.tokenizer)
        made = generator.completed([ids for _, ids, _ in missing], [sampling] * len(missing))
        for number, (place, generation) in enumerate(made, len(prompts) - len(missing) + 1):
            self.answers.keep(missing[place][2], generation.text)
            self.progress(number, len(prompts))
        right = [task.right(self.answers[asked], item) for item, _, asked in prompts]
        return {"exact_match": share(np.array(right, bool))}

    def _text(self, items: Sequence[Item], tally: Tally) -> dict[str, Measure]:
        """Each text as a document of its own."""
        texts = self.tokenizer.encode_batch([item.contexts[0] for item in items])
        end = np.array([self.tokenizer.end], self.tokenizer.dtype)
        documents = (Document(np.concatenate([end, ids])) for ids in texts)
        found = score_text(self.model, documents, self.tokenizer.token_bytes(), tally, "task")
        return {"loss": found.loss, "perplexity": found.perplexity, "bits_per_byte": found.bits_per_byte}
