"""What goes wrong is told in one shape, by a status that says whose fault it was."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ingot.tokenizer.tokenizer import Tokenizer

HELLO = [{"role": "user", "content": "Hi"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error that an answer tells; its shape is checked."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["message"] and "\n" not in body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({}, "messages", "required"),
        ({"messages": "Hi"}, "messages", "list"),
        ({"messages": [{"role": "pirate", "content": "Arr"}]}, "messages.0.role", "'user'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content", "string"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages", "surrogate"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type", "text"),
        ({"messages": HELLO, "max_tokens": 10**9}, "max_tokens", "128 at most"),
        ({"messages": HELLO, "max_tokens": 10**30}, "max_tokens", "less than"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens", "greater"),
        ({"messages": HELLO, "max_tokens": 3, "max_completion_tokens": 4}, None, "max_tokens"),
        ({"messages": HELLO, "n": 10**6}, "n", "less than"),
        ({"messages": HELLO, "temperature": 3}, "temperature", "less than"),
        ({"messages": HELLO, "temperature": float("nan")}, "temperature", ""),
        ({"messages": HELLO, "top_p": 0}, "top_p", "greater"),
        ({"messages": HELLO, "temprature": 1}, "temprature", "did you mean 'temperature'?"),
        ({"messages": HELLO, "tools": [{}]}, None, "tools is not supported"),
        ({"messages": HELLO, "response_format": {"type": "json_object"}}, None, "response_format"),
        ({"messages": HELLO, "top_logprobs": 3}, None, "logprobs=true"),
        ({"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
        ({"messages": HELLO, "stream_options": {"include_usage": True}}, None, "stream"),
        ({"messages": HELLO, "logit_bias": {"x": 1}}, None, "no token id"),
        ({"messages": HELLO, "logit_bias": {"99999": 1}}, "logit_bias", "no token 99999"),
        ({"messages": HELLO, "logit_bias": {"5": 101}}, "logit_bias.5", "less than"),
        ({"messages": HELLO, "stop": [""]}, "stop.0", "at least 1"),
        ({"messages": [{"role": "user", "content": "word " * 200}]}, "messages", "context is 128"),
        ([1], None, "JSON object"),
        ("Hi", None, "JSON object"),
        (None, None, "JSON object"),
    ],
)
def test_a_bad_chat_request_is_told_by_its_field(http, body, param, said):
    answer = http.post(CHAT, content=json.dumps(body), headers={"content-type": "application/json"})
    error = error_of(answer)
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert said in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt.0"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": [[1], [99999]]}, "prompt"),
        ({"prompt": [-1]}, "prompt.0"),
        ({"prompt": ["x"] * 1000}, "n"),
        ({"prompt": [5] * 1000}, "prompt"),
        ({"prompt": "x", "echo": True}, None),
        ({"prompt": "x", "suffix": "y"}, None),
    ],
)
def test_a_bad_completion_request_is_told_by_its_field(http, body, param):
    answer = http.post(TEXT, json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b'{"messages": ', b"\xff\xfe", b'{"prompt": "\xc3"}', b"[" * 100_000, b"1" * 5_000, b"NaN", b"\0"],
)
def test_what_is_no_json_is_a_bad_request(http, content):
    answer = http.post(TEXT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error_of(answer)


def test_only_json_is_read(http):
    """A page elsewhere can make a browser send plain text here without asking first, but not JSON."""
    answer = http.post(TEXT, content=b'{"prompt": "x"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert "application/json" in error_of(answer)["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_not_read(http, chunked):
    body = json.dumps({"prompt": "x" * (5 * 2**20)}).encode()
    pieces = (body[start : start + 2**16] for start in range(0, len(body), 2**16))
    answer = http.post(TEXT, content=pieces if chunked else body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    error_of(answer)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/models/nothing", 404),
        ("GET", "/v1/models/", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/", 405),
        ("GET", "/%ff%00", 404),
        ("GET", "/../../etc/passwd", 404),
    ],
)
def test_unknown_paths_and_methods_are_told(http, method, path, status):
    answer = http.request(method, path)
    assert answer.status_code == status
    error_of(answer)
    assert status != 405 or answer.headers["allow"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('one at a time') }}", "one at a time"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for", "not valid Jinja"),
    ],
)
def test_a_template_that_refuses_is_a_bad_request(serve, language_model, tokenizer, template, said):
    strict = Tokenizer(tokenizer.content, {"chat_template": template})
    with serve({"strict": language_model(strict)}, slots=1) as server:
        answer = httpx.post(server.url + CHAT, json={"messages": HELLO})
        assert (answer.status_code, error_of(answer)["param"]) == (400, "messages")
        assert said in error_of(answer)["message"]
        assert httpx.post(server.url + TEXT, json={"prompt": "The"}).status_code == 200


def test_names_that_are_no_text_are_told_all_the_same(http):
    for body in ({"\ud800": 1}, {"model": "\ud800", "messages": HELLO}, {"messages": HELLO, "stop": "\ud800"}):
        answer = http.post(CHAT, content=json.dumps(body), headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400, 404)


def test_no_other_site_may_ask(http):
    """CORS is off, and a forged name that points at loopback is no name of this server."""
    asked = http.options(CHAT, headers={"origin": "http://evil.example", "access-control-request-method": "POST"})
    assert asked.status_code == 405
    answer = http.get("/v1/models", headers={"origin": "http://evil.example"})
    assert not [name for name in [*asked.headers, *answer.headers] if name.startswith("access-control")]
    forged = http.get("/v1/models", headers={"host": "evil.example"})
    assert (forged.status_code, error_of(forged)["code"]) == (403, "unknown_host")


def metrics_of(http) -> dict[str, float]:
    lines = http.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_health_and_metrics_tell_how_it_is(http):
    assert http.get("/health").json()["models"].keys() == {"tiny", "other"}
    http.post(CHAT, json={"messages": HELLO, "max_tokens": 1})  # a first request names the endpoint
    before = metrics_of(http)
    usage = http.post(CHAT, json={"messages": HELLO, "max_tokens": 5}).json()["usage"]  # it may end before the fifth
    after = metrics_of(http)
    grown = {name: after[name] - before[name] for name in before}
    assert grown['ingot_requests_total{endpoint="chat",outcome="ok"}'] == 1
    assert grown['ingot_prompt_tokens_total{model="tiny"}'] == usage["prompt_tokens"] > 0
    assert grown['ingot_generated_tokens_total{model="tiny"}'] == usage["completion_tokens"] > 0
    assert grown['ingot_time_to_first_token_seconds_count{model="tiny"}'] == 1
    assert after['ingot_slots{model="tiny"}'] == 4
    assert after['ingot_busy_slots{model="tiny"}'] == after['ingot_queue_length{model="tiny"}'] == 0
