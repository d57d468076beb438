"""Slots and queue under pressure: nobody waits for nothing, and nothing is held for who has gone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from ingot.errors import UserError
from ingot.serve.keys import Keys, is_loopback

CHAT = "/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 30}


def post(url: str, **more: Any) -> httpx.Response:
    return httpx.post(url + CHAT, json=ASKED | more, timeout=60)


def test_a_full_queue_is_told_at_once_and_takes_again_when_it_has_room(serve, held, wait_for):
    with serve(slots=1, queue=2) as server, held(server) as hold, ThreadPoolExecutor(3) as others:
        worker = server.service.models["tiny"].worker
        asked = [others.submit(post, server.url) for _ in range(3)]
        wait_for(lambda: (worker.busy, worker.waiting) == (1, 2))
        refused = post(server.url)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert post(server.url, model="other").status_code == 200  # whose queue is its own
        assert httpx.get(server.url + "/health").json()["models"]["tiny"] == {
            "status": "ok",
            "slots": 1,
            "busy": 1,
            "waiting": 2,
        }
        hold.go.set()
        answers = [one.result() for one in asked]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
        assert post(server.url).status_code == 200


def test_texts_of_one_request_are_taken_all_or_none(serve, held, wait_for):
    with serve(slots=2, queue=2) as server, held(server) as hold, ThreadPoolExecutor(1) as other:
        worker = server.service.models["tiny"].worker
        first = other.submit(post, server.url, n=3)
        wait_for(lambda: (worker.busy, worker.waiting) == (2, 1))
        assert post(server.url, n=2).status_code == 429
        assert (worker.busy, worker.waiting) == (2, 1)
        assert post(server.url, n=5).status_code == 400  # more than there can ever be room for
        hold.go.set()
        assert len(first.result().json()["choices"]) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_leaves_slot_and_queue(serve, held, wait_for, stream):
    with serve(slots=1, queue=8) as server, held(server) as hold:
        worker = server.service.models["tiny"].worker
        for _ in range(2):  # the first is being written, the second waits
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(server.url + CHAT, json=ASKED | {"stream": stream}, timeout=httpx.Timeout(60, read=0.3))
            wait_for(lambda: worker.waiting == 0)
        hold.go.set()
        wait_for(lambda: worker.busy == worker.waiting == 0)
        assert post(server.url).status_code == 200
        metrics = httpx.get(server.url + "/metrics").text
        assert 'ingot_requests_total{endpoint="chat",outcome="gone"} 2.0' in metrics


def test_who_stops_reading_a_stream_frees_its_slot(serve, held, wait_for, endless):
    with serve(slots=1, queue=0) as server, held(server) as hold:
        hold.go.set()
        worker = server.service.models["tiny"].worker
        written = server.service.metrics.written.labels("tiny")
        asked = ASKED | {"stream": True, "max_tokens": 110, "logit_bias": endless}
        with httpx.stream("POST", server.url + CHAT, json=asked) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            assert worker.busy == 1
        wait_for(lambda: worker.busy == 0)
        assert written._value.get() < 110
        assert 'outcome="gone"} 1.0' in httpx.get(server.url + "/metrics").text


def test_an_answer_ends_with_its_time_and_a_wait_too(serve, held, wait_for):
    with serve(slots=1, queue=8, seconds=0.5) as server, held(server) as hold, ThreadPoolExecutor(2) as others:
        worker = server.service.models["tiny"].worker
        first = others.submit(post, server.url)
        wait_for(lambda: worker.busy == 1)
        second = others.submit(post, server.url)
        wait_for(lambda: worker.waiting == 1)
        time.sleep(0.6)
        hold.go.set()
        assert first.result().json()["choices"][0]["finish_reason"] == "length"
        assert first.result().json()["usage"]["completion_tokens"] < 30
        assert (second.result().status_code, second.result().json()["error"]["code"]) == (503, "timeout")
        assert second.result().headers["retry-after"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_thread_that_fails_fails_its_requests_and_the_health(serve, held, wait_for, stream, caplog):
    with serve(slots=1, queue=8) as server, held(server) as hold, ThreadPoolExecutor(2) as others:
        worker = server.service.models["tiny"].worker
        asked = [others.submit(post, server.url, stream=stream) for _ in range(2)]
        wait_for(lambda: (worker.busy, worker.waiting) == (1, 1))

        def fail() -> None:
            raise MemoryError("secret path")

        hold.step = fail
        hold.go.set()
        answers = [one.result() for one in asked] + [post(server.url, stream=stream)]
        assert [answer.status_code for answer in answers] == [500] * 3
        assert all("MemoryError" in answer.json()["error"]["message"] for answer in answers)
        assert not any("secret" in answer.text for answer in answers)
        health = httpx.get(server.url + "/health")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        assert health.json()["models"]["other"]["status"] == "ok"
        assert post(server.url, model="other").status_code == 200
        assert "secret path" in caplog.text


def test_a_failure_in_the_middle_is_the_streams_last_event(serve, held, wait_for):
    with serve(slots=1) as server, held(server) as hold:
        hold.go.set()
        with httpx.stream("POST", server.url + CHAT, json=ASKED | {"stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            hold.step = None
            *_, last, _ = lines
        assert '"type": "server_error"' in last
        assert 'outcome="failed"} 1.0' in httpx.get(server.url + "/metrics").text


def test_draining_takes_nothing_new_and_ends_what_is_open(serve, held, wait_for):
    with serve(slots=1, drain=0.2) as server, held(server) as hold, ThreadPoolExecutor(1) as other:
        open_one = other.submit(post, server.url)
        wait_for(lambda: server.service.models["tiny"].worker.busy == 1)
        server.service.draining = True
        refused = post(server.url)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
        assert httpx.get(server.url + "/health").status_code == 503
        assert httpx.get(server.url + "/v1/models").status_code == 200
        hold.go.set()
        assert open_one.result().status_code == 200


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_open_the_api_and_the_page_is_open(serve):
    with serve(keys=Keys(["sk-one", "sk-two"])) as server:
        for key, status in [("sk-one", 200), ("sk-two", 200), ("sk-on", 401), ("sk-one2", 401), ("-", 401)]:
            answer = httpx.get(server.url + "/v1/models", headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == status
        refused = post(server.url)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"
        odd = httpx.get(server.url + "/v1/models", headers={"authorization": b"Bearer \xff\xfe"})
        assert odd.status_code == 401
        assert httpx.get(server.url + "/metrics").status_code == 401
        for path in ("/", "/page.js", "/page.css", "/health"):
            assert httpx.get(server.url + path).status_code == 200


def test_a_key_file_holds_a_key_a_line(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# people\nsk-one\n\n  sk-two  \n")
    keys = Keys.read(path)
    assert keys.accept("Bearer sk-one") and keys.accept("bearer sk-two")
    assert not any(map(keys.accept, [None, "", "Bearer", "Bearer # people", "Basic sk-one", "sk-one", "Bearer people"]))
    for content in ("", "# none\n", "a key\n"):
        path.write_text(content)
        with pytest.raises(UserError):
            Keys.read(path)
    with pytest.raises(UserError):
        Keys.read(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.8.8.8", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "", "localhost.example.org")],
)
def test_loopback_is_known(host, own):
    assert is_loopback(host) == own
