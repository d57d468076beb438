"""Sampling: equal to transformers' processors, true to the distribution, one random stream for each row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ingot.config import validate
from ingot.errors import UserError
from ingot.generate.sampler import Sampler, draw, keep_likeliest, penalise
from ingot.generate.sampling import Sampling

CPU = torch.device("cpu")
NOTHING_SEEN = torch.zeros(1, 50, dtype=torch.bool)


def _column(value: float, rows: int = 1) -> Tensor:
    return torch.full((rows, 1), value)


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.7])
def test_the_repetition_penalty_equals_transformers(penalty):
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits, ids = torch.randn(4, 50), torch.randint(50, (4, 9))
    seen = torch.zeros(4, 50, dtype=torch.bool).scatter_(1, ids, True)
    expected = processors.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
    torch.testing.assert_close(penalise(logits, seen, _column(penalty)), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(5, 1.0), (0, 0.8), (10, 0.5), (0, 0.01), (500, 0.999), (1, 1.0), (0, 1.0)]
)
def test_top_k_and_top_p_equal_transformers(top_k, top_p):
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits = expected = 3 * torch.randn(64, 50)
    if top_k:
        expected = processors.TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = processors.TopPLogitsWarper(top_p)(None, expected)
    assert torch.equal(keep_likeliest(logits, _column(top_k, 64), _column(top_p, 64)), expected)


def test_tokens_level_with_the_kth_stay():
    kept = keep_likeliest(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), _column(2), _column(1.0))
    assert kept.isfinite().tolist() == [[False, True, True, True]]


def test_each_row_is_cut_by_its_own_settings():
    logits = torch.randn(1, 50).expand(3, -1)
    kept = keep_likeliest(logits, torch.tensor([[0], [3], [1]]), torch.tensor([[1.0], [1.0], [0.5]]))
    assert kept.isfinite().sum(-1).tolist() == [50, 3, 1]


def test_draws_follow_the_distribution():
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]]).expand(20_000, -1)
    shares = draw(logits, torch.rand(20_000, 1)).bincount(minlength=4) / 20_000
    torch.testing.assert_close(shares, logits[0].softmax(-1), rtol=0, atol=0.02)


def test_an_impossible_token_is_never_drawn():
    logits = torch.full((2, 50), -torch.inf)
    logits[:, 7] = 1.5
    ends = torch.tensor([[0.0], [1 - 2**-24]])  # the least and the greatest number that torch.rand gives
    assert draw(logits, ends).tolist() == [7, 7]


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0), Sampling(temperature=1e-30), Sampling(top_k=1), Sampling(top_p=1e-6)]
)
def test_the_likeliest_token_at_each_extreme(sampling):
    logits = torch.randn(1, 50)
    assert Sampler([sampling], CPU).choose(logits, NOTHING_SEEN) == logits.argmax()


def test_temperature_divides_the_logits():
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, -1)
    sampler = Sampler([Sampling(temperature=0.5, seed=row) for row in range(20_000)], CPU)
    shares = sampler.choose(logits, torch.zeros(20_000, 3, dtype=torch.bool)).bincount(minlength=3) / 20_000
    torch.testing.assert_close(shares, (logits[0] * 2).softmax(-1), rtol=0, atol=0.02)


def test_the_penalty_holds_for_greedy_rows_too():
    logits, seen = torch.tensor([[2.0, 1.5]]), torch.tensor([[True, False]])
    assert Sampler([Sampling(temperature=0, repetition_penalty=2)], CPU).choose(logits, seen) == 1


def test_a_rows_stream_is_its_own():
    logits, seen = torch.randn(1, 50).expand(3, -1), NOTHING_SEEN.expand(3, -1)
    mixed = Sampler([Sampling(seed=5), Sampling(temperature=0), Sampling(seed=6)], CPU)
    alone = Sampler([Sampling(seed=5)], CPU)
    together = [mixed.choose(logits, seen)[0].item() for _ in range(20)]
    assert together == [alone.choose(logits[:1], seen[:1]).item() for _ in range(20)]
    assert len(set(together)) > 1


@pytest.mark.parametrize(
    "values", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"repetition_penalty": 0}, {"max_new_tokens": 0}]
)
def test_settings_out_of_range_are_refused_by_name(values):
    with pytest.raises(UserError, match=next(iter(values))):
        validate(Sampling, values, where="generate")


@pytest.mark.parametrize("field", ["seed", "top_k"])
def test_whole_numbers_end_where_pytorch_ends(field: str):
    logits = torch.randn(1, 50)
    largest = validate(Sampling, {field: 2**63 - 1}, where="generate")
    assert 0 <= Sampler([largest], CPU).choose(logits, NOTHING_SEEN).item() < 50
    with pytest.raises(UserError, match=f"^generate: {field}: input should be less than 9223372036854775808, not "):
        validate(Sampling, {field: 2**63}, where="generate")
