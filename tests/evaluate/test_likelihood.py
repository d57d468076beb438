"""Answers that share a row with their context are as likely as alone; encoding and overflow as in the harness."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.evaluate.likelihood import Question, encode_pairs, fitted, likelihoods

ids = st.lists(st.integers(0, 299), min_size=1, max_size=6)


def alone(model, context, answer) -> tuple[float, bool]:
    """One answer by all its logits, in float64."""
    tokens = torch.tensor([[*context, *answer]])
    logits = model(tokens[:, :-1])[0, len(context) - 1 :].double().log_softmax(-1)
    return float(logits.gather(1, torch.tensor(answer)[:, None]).sum()), logits.argmax(-1).tolist() == list(answer)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_answers_side_by_side_are_as_likely_as_alone(family, make_model):
    model = make_model(family)

    @settings(max_examples=25)
    @given(st.lists(st.tuples(ids, st.lists(ids, min_size=1, max_size=4)), min_size=1, max_size=5))
    def check(given_questions):
        questions = [Question(context, answers) for context, answers in given_questions]
        found = dict(likelihoods(model, questions))
        assert sorted(found) == list(range(len(questions)))
        for place, question in enumerate(questions):
            for answer, one in zip(question.answers, found[place], strict=True):
                logprob, greedy = alone(model, question.context, answer)
                assert one.logprob == pytest.approx(logprob, rel=2e-5, abs=2e-5)
                assert one.greedy == greedy

    check()


def test_a_context_is_cut_so_that_each_answer_fits(make_model):
    context = list(range(30))
    parts = fitted(Question(context, [[1, 2, 3], [4]]), 16)
    assert [(list(part.context), part.answers) for part in parts] == [
        (context[-14:], [[1, 2, 3]]),
        (context[-16:], [[4]]),
    ]
    assert fitted(Question(context[:16], [[1]]), 16) == [Question(context[:16], [[1]])]
    with pytest.raises(ValueError, match="longer than the context"):
        fitted(Question([1], [[0] * 17]), 16)
    found = dict(likelihoods(make_model(), parts))
    assert found[0][0].logprob == pytest.approx(alone(make_model(), context[-14:], [1, 2, 3])[0], rel=1e-5)


def test_spaces_belong_to_the_answer_and_an_empty_context_to_the_end_token(tokenizer):
    [one, two, three] = encode_pairs(tokenizer, [("the people ", "of"), ("the people", " of"), ("", "peace")])
    assert one == two
    assert tokenizer.decode(one[0]) == "the people" and tokenizer.decode(one[1]) == " of"
    assert three == ([tokenizer.end], tokenizer.encode("peace"))
