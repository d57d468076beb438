"""Loss on texts against a plain float64 computation over transformers' logits, and what is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.evaluate.bootstrap import mean, ratio, share
from ingot.evaluate.text import NATS, Document, Tally, document_scores, score_text
from ingot.evaluate.tokens import token_scores
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

TEXTS = ["the people", "a nation of laws, and peace.\n", "é国" * 30, "x", "the union of states " * 12, "war"]


def documents(tokenizer: Tokenizer, given: list[str]) -> list[Document]:
    return [Document(np.array([tokenizer.end, *tokenizer.encode(text)])) for text in given]


def by_hand(folder: Path, tokenizer: Tokenizer, context: int) -> tuple[float, int, int, int]:
    """Nats, tokens, and tokens that ranked first and among five: one window at a time, in float64."""
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder).double().eval()
    nats, tokens, first, five = 0.0, 0, 0, 0
    for text in TEXTS:
        ids = [tokenizer.end, *tokenizer.encode(text)]
        for begin in range(0, len(ids) - 1, context):
            window = ids[begin : begin + context + 1]
            with torch.no_grad():
                logits = reference(torch.tensor([window[:-1]])).logits[0]
            for row, target in zip(logits, window[1:], strict=True):
                nats -= math.log(row.softmax(-1)[target].item())
                rank = int((row > row[target]).sum())
                tokens, first, five = tokens + 1, first + (rank < 1), five + (rank < 5)
    return nats, tokens, first, five


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_figures_are_those_of_transformers_in_float64(family, model_folder, make_model, tokenizer):
    nats, tokens, first, five = by_hand(model_folder(family), tokenizer, 16)
    tally = Tally(found=len(TEXTS))
    found = score_text(make_model(family), documents(tokenizer, TEXTS), tokenizer.token_bytes(), tally, "texts")
    size = sum(len(text.encode()) for text in TEXTS)
    assert (found.tokens, found.bytes, found.documents.read) == (tokens, size, len(TEXTS))
    assert found.loss.value == pytest.approx(nats / tokens, rel=1e-6)
    assert found.perplexity.value == pytest.approx(math.exp(nats / tokens), rel=1e-6)
    assert found.bits_per_byte.value == pytest.approx(nats / math.log(2) / size, rel=1e-6)
    assert (found.top1.value, found.top5.value) == pytest.approx((first / tokens, five / tokens))
    assert found.loss.low < found.loss.value < found.loss.high


def test_a_document_counts_the_same_in_any_company(make_model: Callable[..., Decoder], tokenizer: Tokenizer):
    model, sizes = make_model("qwen3"), tokenizer.token_bytes()
    every = documents(tokenizer, TEXTS)
    together = document_scores(model, every, sizes, Tally())
    alone = np.concatenate([document_scores(model, [one], sizes, Tally()) for one in every])
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_only_what_is_learned_is_scored(make_model: Callable[..., Decoder], tokenizer: Tokenizer):
    model, ids = make_model(context=64), np.array([tokenizer.end, *tokenizer.encode(TEXTS[1])])
    learned = np.zeros(len(ids), bool)
    learned[3:5] = True
    found = score_text(model, [Document(ids, learned)], tokenizer.token_bytes(), Tally(1), "part")
    nats, _ = token_scores(model.hidden(torch.from_numpy(ids[None]))[0, 2:4], model.head_weight, torch.tensor(ids[3:5]))
    assert (found.tokens, found.bytes) == (2, sum(len(tokenizer.decode_bytes([one])) for one in ids[3:5]))
    assert found.loss.value == pytest.approx(nats.mean().item(), rel=1e-5)


def test_nothing_to_score_is_reported_and_no_error(make_model: Callable[..., Decoder], tokenizer: Tokenizer):
    model, sizes = make_model(), tokenizer.token_bytes()
    nothing = score_text(model, [], sizes, Tally(), "nothing")
    assert (nothing.tokens, nothing.loss.value, nothing.documents.found) == (0, None, 0)
    bare = score_text(model, documents(tokenizer, ["", "x"]), sizes, Tally(found=2), "bare")
    assert bare.documents.skipped == {"nothing to predict": 1} and bare.documents.read == 1
    assert bare.loss.value is not None and bare.loss.low is None  # one document tells nothing about others


def test_equally_likely_tokens_rank_by_their_ids():
    nats, ranks = token_scores(torch.zeros(3, 2), torch.randn(5, 2), torch.tensor([0, 2, 4]))
    assert ranks.tolist() == [0, 2, 4]
    assert nats.tolist() == pytest.approx([math.log(5)] * 3)
    nats, ranks = token_scores(torch.zeros(0, 2), torch.randn(5, 2), torch.zeros(0, dtype=torch.long))
    assert len(nats) == len(ranks) == 0


def test_scores_of_a_long_text_are_not_rounded_away(make_model: Callable[..., Decoder], tokenizer: Tokenizer):
    every = documents(tokenizer, ["the people of the union"] * 3000)
    scores = document_scores(make_model(), every, tokenizer.token_bytes(), Tally())
    assert scores[:, NATS].sum() == pytest.approx(3000 * scores[0, NATS], rel=1e-6)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=50))
def test_an_interval_holds_its_figure(values):
    found = mean(np.array(values))
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9 or len(values) < 5


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    draw = np.random.default_rng(3)
    hits = {"bootstrap": 0, "wilson": 0}
    for _ in range(200):
        lengths = draw.integers(1, 50, 300).astype(float)
        of_ratio = ratio(lengths * draw.gamma(2.0, 1.5, 300), lengths)
        hits["bootstrap"] += of_ratio.low <= 3.0 <= of_ratio.high
        of_share = share(draw.random(40) < 0.9)
        hits["wilson"] += of_share.low <= 0.9 <= of_share.high
    assert all(0.90 <= hit / 200 <= 0.99 for hit in hits.values()), hits


def test_many_units_are_drawn_in_groups():
    values = np.random.default_rng(1).normal(5, 1, 200_000)
    found = mean(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(200_000), rel=0.15)


def test_none_or_all_right_is_not_called_certain():
    assert share(np.zeros(20, bool)).high > 0.1 and share(np.ones(20, bool)).low < 0.9
    assert share(np.zeros(0, bool)).value is None
