"""Sampling: equal to transformers' processors, true to the distribution, one random stream for each row."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ingot.config.check import validate
from ingot.errors import UserError
from ingot.generate.sampler import Sampler, draw, likeliest, penalise
from ingot.generate.sampling import Sampling

CPU = torch.device("cpu")
DRAWS = 5_000


def _column(value: float, rows: int = 1) -> Tensor:
    return torch.full((rows, 1), float(value))


def _sampler(samplings: Sequence[Sampling], vocabulary: int = 50, prompt: Sequence[int] = ()) -> Sampler:
    sampler = Sampler(len(samplings), vocabulary, CPU)
    for place, sampling in enumerate(samplings):
        sampler.place(place, sampling, prompt)
    return sampler


def _choose(sampling: Sampling, logits: Tensor, prompt: Sequence[int] = ()) -> int:
    return _sampler([sampling], logits.shape[-1], prompt).choose(logits, [0])[0].id


def _kept(logits: Tensor, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, count: int = 10**6) -> Tensor:
    """What the cuts leave of the probabilities (N, V)."""
    rows = len(logits)
    probabilities, ids = likeliest(logits, _column(top_k, rows), _column(top_p, rows), _column(min_p, rows), count)
    return torch.zeros_like(logits).scatter_(-1, ids, probabilities)


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.7])
def test_the_repetition_penalty_equals_transformers(penalty):
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits, ids = torch.randn(4, 50), torch.randint(50, (4, 9))
    seen = torch.zeros(4, 50, dtype=torch.bool).scatter_(1, ids, True)
    expected = processors.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
    torch.testing.assert_close(penalise(logits, seen, _column(penalty)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("count", [8, 50])
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [
        (5, 1.0, 0.0),
        (0, 0.8, 0.0),
        (10, 0.5, 0.0),
        (0, 0.01, 0.0),
        (500, 0.999, 0.0),
        (1, 1.0, 0.0),
        (0, 1.0, 0.0),
        (0, 1.0, 0.1),
        (7, 0.9, 0.05),
        (0, 1.0, 1.0),
    ],
)
def test_cuts_equal_transformers(top_k, top_p, min_p, count):
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits = expected = 3 * torch.randn(64, 50)
    if top_k:
        expected = processors.TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = processors.TopPLogitsWarper(top_p)(None, expected)
    if min_p:
        expected = processors.MinPLogitsWarper(min_p)(None, expected)
    kept = _kept(logits, top_k, top_p, min_p, count)
    whole = (kept.ne(0).sum(-1) < count) & (top_k <= count) | (count == 50)  # the candidates were enough
    shares = kept / kept.sum(-1, keepdim=True)
    torch.testing.assert_close(shares[whole], expected.softmax(-1)[whole], rtol=1e-5, atol=1e-7)
    assert torch.equal(kept[whole] > 0, expected[whole].isfinite())


def test_tokens_level_with_the_kth_stay():
    assert _kept(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), top_k=2).ne(0).tolist() == [[False, True, True, True]]


def test_each_row_is_cut_by_its_own_settings():
    settings = [{}, {"top_k": 3}, {"top_k": 1, "top_p": 0.5}, {"temperature": 0}, {"min_p": 1.0}]
    logits = torch.randn(1, 50).expand(len(settings), -1)
    sampler = _sampler([Sampling(seed=row, **one) for row, one in enumerate(settings)])
    seen: list[set[int]] = [set() for _ in settings]
    for _ in range(400):
        for ids, choice in zip(seen, sampler.choose(logits, range(len(settings))), strict=True):
            ids.add(choice.id)
    assert [len(ids) for ids in seen[1:]] == [3, 1, 1, 1]
    assert len(seen[0]) > 20
    assert seen[1] == set(logits[0].topk(3).indices.tolist())


@pytest.mark.parametrize("settings", [{}, {"top_k": 300}, {"top_p": 0.9}, {"top_p": 0.3, "top_k": 4}, {"min_p": 0.2}])
@pytest.mark.parametrize("vocabulary", [4, 300, 2000])
def test_draws_follow_the_distribution(settings, vocabulary):
    """The shares of all draws at chances spread evenly are the probabilities, to their spacing."""
    logits = 2 * torch.randn(1, vocabulary)
    expected = _kept(logits, **settings)[0]
    chances = torch.arange(DRAWS)[:, None] / DRAWS
    sampling = Sampling(**settings)
    limits = torch.tensor([[1.0, 0.0, 0.0, 1.0, sampling.top_k, sampling.top_p, sampling.min_p]]).expand(DRAWS, -1)
    made = torch.cat(
        [draw(logits.expand(len(c), -1), limits[: len(c)], c, sampling.cuts) for c in chances.split(2_000)]
    )
    shares = made.bincount(minlength=vocabulary) / DRAWS
    torch.testing.assert_close(shares, expected / expected.sum(), rtol=0, atol=2.1 / DRAWS)


def test_an_impossible_token_is_never_drawn():
    logits = torch.full((2, 50), -torch.inf)
    logits[:, 7] = 1.5
    ends = torch.tensor([[0.0], [1 - 2**-24]])  # the least and the greatest number that torch.rand gives
    for settings in ([[1.0, 0, 0, 1.0, 0, 1.0, 0]], [[1.0, 0, 0, 1.0, 3, 0.5, 0.5]]):
        assert draw(logits, torch.tensor(settings).expand(2, -1), ends, settings[0][4] > 0).tolist() == [7, 7]


@pytest.mark.parametrize("settings", [{}, {"top_k": 3}, {"top_p": 0.5}, {"repetition_penalty": 1.2}])
@pytest.mark.parametrize("vocabulary", [50, 2000])
def test_of_no_numbers_nothing_is_drawn(settings, vocabulary):
    logits = torch.zeros(2, vocabulary)
    logits[1, 3] = torch.nan
    sampler = _sampler([Sampling(**settings)] * 2, vocabulary)
    with pytest.raises(UserError, match="the logits of the model are no numbers"):
        sampler.choose(logits, range(2))


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"temperature": 1e-30}, {"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}]
)
def test_the_likeliest_token_at_each_extreme(settings):
    logits = torch.randn(1, 50)
    assert _choose(Sampling(**settings), logits) == logits.argmax()


def test_temperature_divides_the_logits():
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, -1)
    sampler = _sampler([Sampling(temperature=0.5, seed=row) for row in range(20_000)], 3)
    chosen = torch.tensor([choice.id for choice in sampler.choose(logits, range(20_000))])
    torch.testing.assert_close(chosen.bincount(minlength=3) / 20_000, (logits[0] * 2).softmax(-1), rtol=0, atol=0.02)


def test_the_penalty_holds_for_greedy_rows_too():
    logits = torch.tensor([[2.0, 1.5]])
    assert _choose(Sampling(temperature=0, repetition_penalty=2), logits, prompt=[0]) == 1


def test_frequency_and_presence_count_the_text_and_not_the_prompt():
    logits = torch.tensor([[3.0, 2.1, 0.0, -5.0]])
    by_presence = _sampler([Sampling(temperature=0, presence_penalty=1)], 4, prompt=[0, 0, 1])
    assert [by_presence.choose(logits, [0])[0].id for _ in range(4)] == [0, 1, 0, 0]  # 3; 2.1 > 2; 2 > 1.1; 2
    by_frequency = _sampler([Sampling(temperature=0, frequency_penalty=1)], 4, prompt=[0, 0, 1])
    assert [by_frequency.choose(logits, [0])[0].id for _ in range(5)] == [0, 1, 0, 1, 0]


def test_a_bias_bans_and_forces():
    logits = torch.tensor([[3.0, 2.0, 0.0]])
    assert _choose(Sampling(temperature=0, logit_bias={0: -100}), logits) == 1
    assert _choose(Sampling(seed=1, logit_bias={2: 100}), logits) == 2
    assert _choose(Sampling(temperature=0, logit_bias={1: 1.5}), logits) == 1


def test_a_place_forgets_the_request_before():
    logits = torch.tensor([[2.0, 1.5]])
    sampler = _sampler([Sampling(temperature=0, repetition_penalty=2, logit_bias={0: -100})], 2, prompt=[0])
    sampler.choose(logits, [0])
    sampler.place(0, Sampling(temperature=0, repetition_penalty=2), [])
    assert sampler.choose(logits, [0])[0].id == 0
    sampler.place(0, Sampling(temperature=0), [])
    assert sampler.choose(logits, [0])[0].id == 0


def test_log_probabilities_are_the_models_own():
    """Of the raw logits, whatever penalty, bias, temperature or cut chose the token."""
    logits = torch.randn(3, 50)
    asked = [
        Sampling(temperature=0, logprobs=0),
        Sampling(seed=1, temperature=3, top_k=4, logit_bias={5: 100}, logprobs=5),
        Sampling(seed=1),
    ]
    first, second, third = _sampler(asked).choose(logits, range(3))
    expected = logits.log_softmax(-1)
    assert first.logprob == pytest.approx(expected[0].max().item()) and first.alternatives == ()
    assert second.id == 5 and second.logprob == pytest.approx(expected[1, 5].item())
    values, ids = expected[1].topk(5)
    assert [token for token, _ in second.alternatives] == ids.tolist()
    assert [value for _, value in second.alternatives] == pytest.approx(values.tolist())
    assert third.logprob is None and third.alternatives == ()


def test_a_rows_stream_is_its_own():
    logits = torch.randn(1, 50).expand(3, -1)
    mixed = _sampler([Sampling(seed=5), Sampling(temperature=0), Sampling(seed=6)])
    alone = _sampler([Sampling(seed=5)])
    together = [mixed.choose(logits, range(3))[0].id for _ in range(20)]
    assert together == [alone.choose(logits[:1], [0])[0].id for _ in range(20)]
    assert len(set(together)) > 1


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"top_k": -1},
        {"repetition_penalty": 0},
        {"max_new_tokens": 0},
        {"stop": [""]},
        {"min_p": 2},
        {"logprobs": 21},
        {"logit_bias": {-1: 0}},
    ],
)
def test_settings_out_of_range_are_refused_by_name(values):
    with pytest.raises(UserError, match=next(iter(values))):
        validate(Sampling, values, where="generate")


@pytest.mark.parametrize("field", ["seed", "top_k"])
def test_whole_numbers_end_where_pytorch_ends(field: str):
    largest = validate(Sampling, {field: 2**63 - 1}, where="generate")
    assert 0 <= _choose(largest, torch.randn(1, 50)) < 50
    with pytest.raises(UserError, match=f"^generate: {field}: input should be less than 9223372036854775808, not "):
        validate(Sampling, {field: 2**63}, where="generate")


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"top_k": 300, "top_p": 0.95}, {"min_p": 0.01}])
def test_a_row_alone_draws_as_it_does_among_others(settings, two_threads):
    """Also where the vocabulary is so large that PyTorch may part a row's sum among its threads."""
    logits = 2 * torch.randn(5, 60_000)
    samplings = [Sampling(seed=row, **settings) for row in range(5)]
    together, alone = _sampler(samplings, 60_000), _sampler(samplings, 60_000)
    for _ in range(3):
        choices = together.choose(logits, range(5))
        assert choices == [alone.choose(logits[row : row + 1], [row])[0] for row in range(5)]
