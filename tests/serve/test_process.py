"""`ingot serve` as a process: how it begins, and how it ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ingot.cli import run
from ingot.extras import pip_install

CHAT = "/v1/chat/completions"


@pytest.fixture
def process(start: Callable[..., Any], folder: Path) -> Iterator[SimpleNamespace]:
    with start(folder, "--drain", "60") as made:
        yield made


def test_a_signal_lets_open_answers_end_and_takes_no_new_ones(process, endless):
    asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 300, "logit_bias": endless}
    with httpx.Client(base_url=process.url, timeout=60) as client:
        with client.stream("POST", CHAT, json=asked | {"stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.popen.send_signal(signal.SIGTERM)
            while client.get("/health").json()["status"] == "ok":
                pass
            refused = client.post(CHAT, json=asked)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
            said = [line for line in lines if line]
        assert said[-1] == "data: [DONE]"
        assert len(said) > 200
    assert process.popen.wait(60) == -signal.SIGTERM
    assert "Traceback" not in process.popen.stderr.read()


def test_ctrl_c_is_how_a_server_ends(process):
    httpx.get(f"{process.url}/health").raise_for_status()
    process.popen.send_signal(signal.SIGINT)
    assert process.popen.wait(60) == 130
    assert (process.popen.stdout.read(), process.popen.stderr.read()) == ("stopped\n", "")


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once(process, endless):
    asked = {"prompt": "The", "max_tokens": 2000, "logit_bias": endless, "stream": True, "n": 16}
    with httpx.stream("POST", f"{process.url}/v1/completions", json=asked, timeout=60) as answer:
        lines = answer.iter_lines()  # kept: the answer is closed with it
        next(lines)
        process.popen.send_signal(signal.SIGINT)
        while httpx.get(f"{process.url}/health").json()["status"] == "ok":
            pass
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(60) == 130
    assert process.popen.stderr.read().splitlines()[-1] == "ingot: interrupted"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: whoever reaches this machine could use the model"),
        (["--host", "::"], "--host ::"),
        (["--keys", "nothing"], "nothing: no keys can be read here"),
        (["--slots", "0"], "slots"),
        (["--host", "203.0.113.1", "--keys", "keys"], "nothing can listen here"),
    ],
)
def test_a_server_that_should_not_listen_does_not(folder, options, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").write_text("sk-one\n")
    assert run(["serve", str(folder), "--port", "0", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ingot: ") and said in line


def test_a_busy_port_is_told_before_anything_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "no-such-model", "--port", str(port)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--port {port}" in line


def test_a_missing_library_is_told_with_its_extra(folder, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["serve", str(folder)]) == 2
    assert pip_install("serve") in capsys.readouterr().err


def test_unknown_and_repeated_models_are_told(folder, capsys, tmp_path):
    assert run(["serve", "no-such-model", "--port", "0", "--runs", str(tmp_path)]) == 2
    assert run(["serve", str(folder), str(folder), "--port", "0"]) == 2
    assert [line.count("\n") for line in capsys.readouterr().err.splitlines()] == [0, 0]
