"""Properties of texts, and copies of training text found as a plain search finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data.cache import Shard, TokenView
from ingot.errors import UserError
from ingot.evaluate import copies
from ingot.evaluate.evaluator import Evaluator
from ingot.evaluate.quality import distinct, quality, repetition
from ingot.generate.sampling import Sampling

few = st.lists(st.integers(0, 2), max_size=40)


def stream(folder: Path, tokens: list[int]) -> TokenView:
    """A token view over `tokens`, which are one document."""
    np.array(tokens, "<u2").tofile(folder / "train-00000.bin")
    shard = Shard("train-00000.bin", 0, tokens=len(tokens), documents=1)
    return TokenView(folder, [shard], np.array([0]), "<u2")


def longest_common(text: list[int], within: list[int], seed: int) -> int:
    """Tokens of the longest stretch of `text` that `within` holds, from `seed` on; one after another."""
    found = 0
    for begin in range(len(text)):
        for other in range(len(within)):
            length = 0
            while begin + length < len(text) and other + length < len(within):
                if text[begin + length] != within[other + length]:
                    break
                length += 1
            found = max(found, length)
    return found if found >= seed else 0


@settings(max_examples=40)
@given(texts=st.lists(few, min_size=1, max_size=4), corpus=st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_copies_are_those_of_a_plain_search(tmp_path_factory, texts, corpus):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "PIECE", 7)  # stretches reach over the pieces
        patch.setattr(copies, "PAIRS", 5)
        found = copies.Copies(texts, seed=3)
        found.search(stream(tmp_path_factory.mktemp("view"), corpus))
    assert found.longest == [longest_common(text, corpus, 3) for text in texts]
    assert found.searched == len(corpus)
    for text, length, begin in zip(texts, found.longest, found.begins, strict=True):
        assert longest_common(text[begin : begin + length], corpus, 3) == length


def test_only_so_much_is_searched(tmp_path):
    found = copies.Copies([[5] * 10], seed=3)
    found.search(stream(tmp_path, [1] * 50 + [5] * 10), most=40)
    assert (found.searched, found.longest) == (40, [0])


def test_variety_and_repetition():
    assert distinct([[1, 2, 1, 2], [1, 2]], 2) == 2 / 4  # (1,2) (2,1) (1,2) and (1,2)
    assert distinct([[1]], 2) == 0.0
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4, 1]) == (2, 6)
    assert repetition([1, 2]) == (0, 0)


def test_a_model_that_copies_is_found_out(make_model, tokenizer, tmp_path):
    model = make_model(context=64)
    greedy = Sampling(temperature=0, max_new_tokens=20)
    prompt = [tokenizer.end, *tokenizer.encode("the people")]
    first = quality(model, tokenizer, [prompt], source="given", sampling=greedy)
    assert first.written.copied.value is None and first.searched_tokens == 0
    made = Evaluator(model, tokenizer).evaluate_generation_quality(["the people"], temperature=0, max_new_tokens=20)
    assert made.written == first.written
    again = tokenizer.encode(first.samples[0][1])
    told = quality(
        model,
        tokenizer,
        [prompt],
        source="given",
        real=[again],
        train=stream(tmp_path, [1, *again, 2]),
        sampling=greedy,
    )
    assert told.real.copied.value == len(again)
    assert told.real.texts == 1 and told.written.tokens.value <= 20


def test_speed_and_all_at_once(make_model, tokenizer):
    found = Evaluator(make_model(), tokenizer).comprehensive_evaluation(["the people of", "war"], ["the"])
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))
    assert [one["batch"] for one in found["speed"]] == [1, 8]
    assert all(one["prefill"] > 0 and one["decode"] > 0 for one in found["speed"])
    assert found["quality"]["written"]["texts"] == 1


def test_loaders_of_all_kinds_give_the_same_loss(make_model, tokenizer):
    import torch

    evaluator = Evaluator(make_model(), tokenizer)
    text = "the people of the union"
    ids = [tokenizer.end, *tokenizer.encode(text)]
    assert len(ids) <= 16
    row = torch.tensor([ids])
    padded = torch.tensor([[*ids, 0, 0]])
    seen = torch.tensor([[1] * len(ids) + [0, 0]])
    labels = torch.tensor([[*ids, -100, -100]])
    perplexity, loss = evaluator.calculate_perplexity([text])
    for batch in (
        row,
        row[0],
        {"input_ids": padded, "attention_mask": seen},
        {"input_ids": padded, "labels": labels},
        (row[:, :-1], row[:, 1:]),
    ):
        assert evaluator.calculate_perplexity([batch]) == pytest.approx((perplexity, loss), rel=1e-6)
    for nothing in ([], [""]):
        with pytest.raises(UserError, match="no text to measure on"):
            evaluator.calculate_perplexity(nothing)
    with pytest.raises(UserError, match="a loader can't give int"):
        evaluator.calculate_perplexity([3])
