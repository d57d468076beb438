"""The unmodified `openai` client against a real server: what it reads is what the generator writes."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ingot.chat.context import Message
from ingot.generate.sampling import Sampling
from ingot.generate.token import Generation
from ingot.language_model import LanguageModel

openai = pytest.importorskip("openai")

TURNS = [Message("system", "A fox."), Message("user", "The quick brown")]
HELLO = [turn._asdict() for turn in TURNS]
DRAWN = {"temperature": 1.0, "seed": 5, "max_tokens": 40}


@pytest.fixture(scope="module")
def client(server: SimpleNamespace) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def tiny(models: dict[str, LanguageModel]) -> LanguageModel:
    return models["tiny"]


def written(model: LanguageModel, **sampling: Any) -> Generation:
    """What the model's generator answers to HELLO."""
    return model.generator.complete([model.template.prompt(TURNS)], [Sampling(**sampling)])[0]


def test_models_are_listed(client, models):
    assert [model.id for model in client.models.list()] == ["tiny", "other"]
    other = client.models.retrieve("other")
    assert other.owned_by == "ingot"
    assert other.parameters == sum(parameter.numel() for parameter in models["other"].model.parameters())


@pytest.mark.parametrize("name", ["tiny", "other"])
def test_a_chat_is_what_the_generator_writes(client, models, name):
    answer = client.chat.completions.create(model=name, messages=HELLO, temperature=0, max_completion_tokens=12)
    alone = written(models[name], temperature=0, max_new_tokens=12)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", alone.text)
    assert choice.finish_reason == {"end": "stop", "length": "length"}[alone.reason]
    prompt = len(models[name].template.prompt(TURNS))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, len(alone.tokens))
    assert answer.usage.total_tokens == prompt + len(alone.tokens)
    assert (answer.model, answer.object) == (name, "chat.completion")


def test_a_stream_is_the_answer_in_pieces(client, tiny):
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}, **DRAWN
        )
    )
    alone = written(tiny, temperature=1.0, seed=5, max_new_tokens=40)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == alone.text
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == [
        "stop" if alone.reason == "end" else "length"
    ]
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], len(alone.tokens))
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 10


def test_n_answers_draw_with_seeds_that_follow_each_other(client, tiny):
    answer = client.chat.completions.create(model="tiny", messages=HELLO, n=3, **DRAWN)
    alone = [written(tiny, temperature=1.0, seed=5 + text, max_new_tokens=40).text for text in range(3)]
    assert [choice.message.content for choice in answer.choices] == alone
    assert len(set(alone)) == 3
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(model="tiny", messages=HELLO, n=3, stream=True, **DRAWN):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == alone


def test_the_same_seed_gives_the_same_answer_and_none_another(client):
    def ask(**more: Any) -> str:
        answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=40, **more)
        return answer.choices[0].message.content

    assert ask(seed=7) == ask(seed=7) != ask(seed=8)
    assert ask(seed=-7) == ask(seed=-7)
    assert ask() != ask()


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_before_it(client, tiny, stream):
    text = written(tiny, temperature=1.0, seed=5, max_new_tokens=40).text
    stop = text[9:12]
    whole = text[: text.index(stop)]
    answer = client.chat.completions.create(model="tiny", messages=HELLO, stop=[stop, "\0"], stream=stream, **DRAWN)
    if not stream:
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (whole, "stop")
        return
    chunks = list(answer)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", [None, "o"])
def test_log_probabilities_tell_the_tokens_of_the_text(client, tiny, stream, stop):
    asked = {"model": "tiny", "messages": HELLO, "logprobs": True, "top_logprobs": 4, "stop": stop, **DRAWN}
    if stream:
        choices = [chunk.choices[0] for chunk in client.chat.completions.create(stream=True, **asked)]
        text = "".join(choice.delta.content or "" for choice in choices)
        told = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    else:
        choice = client.chat.completions.create(**asked).choices[0]
        text, told = choice.message.content, choice.logprobs.content
    alone = written(tiny, temperature=1.0, seed=5, max_new_tokens=40, logprobs=4, stop=[stop] if stop else [])
    assert text == alone.text
    spelled = b"".join(bytes(token.bytes) for token in told)
    assert spelled.decode(errors="replace").startswith(text)
    tokens = [token for token in alone.tokens if token.reason != "end"]
    assert len(told) <= len(tokens) and (stop or len(told) == len(tokens))
    for one, token in zip(told, tokens, strict=False):
        assert one.logprob == pytest.approx(token.logprob, abs=1e-4)
        assert [other.logprob for other in one.top_logprobs] == pytest.approx(
            [logprob for _, logprob in token.alternatives], abs=1e-4
        )


def test_completions_continue_texts_and_ids(client, tiny):
    texts = ["The quick", "über 東京"]
    asked = {"model": "tiny", "temperature": 0, "max_tokens": 9}
    alone = [made.text for made in tiny.generator.generate(texts, Sampling(temperature=0, max_new_tokens=9))]
    answer = client.completions.create(prompt=texts, n=2, **asked)
    assert [choice.text for choice in answer.choices] == [alone[0], alone[0], alone[1], alone[1]]
    ids = [[tiny.tokenizer.end, *tiny.tokenizer.encode(text)] for text in texts]
    assert [choice.text for choice in client.completions.create(prompt=ids, **asked).choices] == alone
    (choice,) = client.completions.create(prompt=ids[1], **asked).choices
    assert (choice.text, choice.finish_reason) == (alone[1], "length")
    streamed = ["", ""]
    for chunk in client.completions.create(prompt=texts, stream=True, **asked):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == alone
    assert client.completions.create(model="tiny", prompt="The", seed=1).usage.completion_tokens <= 16


def test_completions_tell_log_probabilities(client):
    asked = {"model": "tiny", "prompt": "The quick", "temperature": 0, "max_tokens": 9, "logprobs": 2}
    told = client.completions.create(**asked).choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset)
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert max(top.values()) == top[token] == logprob  # greedy
    assert told.text_offset == [len("".join(told.tokens[:place])) for place in range(len(told.tokens))]
    pieces = [chunk.choices[0].logprobs for chunk in client.completions.create(stream=True, **asked)]
    assert [token for piece in pieces for token in piece.tokens] == told.tokens
    assert [offset for piece in pieces for offset in piece.text_offset] == told.text_offset


def test_settings_reach_the_model(client, tiny):
    """Penalties and bias change the answer as they change the generator's."""
    settings: dict[str, Any] = {"frequency_penalty": 1.5, "presence_penalty": 0.5, "top_p": 0.9}
    more = {"top_k": 30, "min_p": 0.01, "repetition_penalty": 1.2}
    bias = {tiny.tokenizer.encode("e")[0]: 3.0}
    settings |= {"logit_bias": {str(token): value for token, value in bias.items()}}
    answer = client.chat.completions.create(model="tiny", messages=HELLO, extra_body=more, **settings, **DRAWN)
    settings |= {"logit_bias": bias}
    alone = written(tiny, **settings, **more, temperature=1.0, seed=5, max_new_tokens=40)
    assert answer.choices[0].message.content == alone.text


def test_an_answer_may_fill_the_context(client, tiny):
    answer = client.chat.completions.create(model="tiny", messages=HELLO, logit_bias={}, temperature=0)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens <= 129  # the last token needs no place


def test_content_may_come_in_parts_and_a_developer_is_the_system(client):
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "A "}, {"type": "text", "text": "fox."}]},
        {"role": "user", "content": "The quick brown"},
    ]
    asked = {"model": "tiny", "temperature": 0, "max_tokens": 5}
    one, other = (client.chat.completions.create(messages=said, **asked) for said in (parts, HELLO))
    assert one.choices[0].message.content == other.choices[0].message.content


def test_mistakes_are_the_clients_own_errors(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="tinny", messages=HELLO)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert "did you mean 'tiny'" in missing.value.message
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 500}])
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
