"""A small random model, and a server over it on loopback, in a thread."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch

from ingot.language_model import LanguageModel
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import save_model
from ingot.model.initial import Scaled
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

import uvicorn

from ingot.serve.app import create_app
from ingot.serve.keys import Keys
from ingot.serve.limits import Limits
from ingot.serve.server import address_of, listen
from ingot.serve.service import Service

MakeModel = Callable[..., LanguageModel]
TEXTS = ["The quick brown fox jumps over the lazy dog; größer, 東京 и 😀. A state of the union is a speech."] * 4


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return BPE(vocabulary=320).train(iter(TEXTS))


@pytest.fixture(scope="session")
def language_model() -> MakeModel:
    """A llama of random weights that reads 128 tokens, or as many as `context` says."""

    def make(tokenizer: Tokenizer, seed: int = 0, context: int = 128) -> LanguageModel:
        torch.manual_seed(seed)
        shape = {"layers": 2, "hidden_size": 48, "heads": 4, "kv_heads": 2}
        arch = Architecture(family="llama", vocabulary=tokenizer.vocabulary, context=context, **shape)
        return LanguageModel(Decoder(arch, init=Scaled(width=0.3)).eval(), tokenizer, Path(), name=f"tiny-{seed}")

    return make


@pytest.fixture(scope="session")
def models(language_model: MakeModel, tokenizer: Tokenizer) -> dict[str, LanguageModel]:
    return {name: language_model(tokenizer, seed) for seed, name in enumerate(["tiny", "other"])}


@contextmanager
def serving(models: Mapping[str, LanguageModel], limits: Limits, keys: Keys | None = None) -> Iterator[SimpleNamespace]:
    """A server in a thread: its `url` and its `service`."""
    service = Service(models, limits)
    made = listen("127.0.0.1", 0, None)
    config = uvicorn.Config(
        create_app(service, keys, {"127.0.0.1", "localhost"}),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,  # for clients that are still there
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [made]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield SimpleNamespace(url=address_of(made), service=service)
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def endless(tokenizer: Tokenizer) -> dict[str, int]:
    """A `logit_bias` with which an answer does not end by itself."""
    return {str(token): -100 for token in tokenizer.special.values()}


@pytest.fixture(scope="session")
def server(models: dict[str, LanguageModel]) -> Iterator[SimpleNamespace]:
    """Two models, 4 slots each, and a queue that the tests don't fill."""
    with serving(models, Limits(slots=4, queue=256)) as made:
        yield made


@pytest.fixture(scope="session")
def http(server: SimpleNamespace) -> Iterator[httpx.Client]:
    """A plain client of that server."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def serve(models: dict[str, LanguageModel]) -> Callable[..., Any]:
    """A server with models, keys and limits of the test's own, as a context manager."""

    def start(own: dict[str, LanguageModel] | None = None, keys: Keys | None = None, **limits: Any) -> Any:
        return serving(own or models, Limits(**limits), keys)

    return start


@pytest.fixture(scope="session")
def held() -> Callable[[SimpleNamespace], Any]:
    """A context in which a server's first model makes no step until `go` is set.

    Afterwards each is `step`, a hundredth of a second later.
    """

    @contextmanager
    def hold_back(server: SimpleNamespace) -> Iterator[SimpleNamespace]:
        batch = server.service.models["tiny"].batch
        hold = SimpleNamespace(go=threading.Event(), step=batch.step)

        def slow() -> Any:
            hold.go.wait()
            time.sleep(0.01)
            return hold.step()

        batch.step = slow
        try:
            yield hold
        finally:
            hold.go.set()

    return hold_back


@pytest.fixture(scope="session")
def folder(language_model: MakeModel, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that reads 2,048 tokens, which take it seconds to write."""
    path = tmp_path_factory.mktemp("served") / "little"
    save_model(language_model(tokenizer, context=2048).model, path, end=tokenizer.end)
    tokenizer.save(path)
    return path


@pytest.fixture(scope="session")
def start() -> Callable[..., Any]:
    """`ingot serve` of a folder in a process of its own: its `url` and its `popen`."""

    @contextmanager
    def run(folder: Path, *options: str) -> Iterator[SimpleNamespace]:
        command = [sys.executable, "-m", "ingot", "serve", str(folder), "--port", "0", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as process:
            try:
                line = process.stdout.readline()
                assert line.startswith(f"{folder.name} at http://127.0.0.1:"), process.stderr.read()
                yield SimpleNamespace(url=line.split()[2], popen=process)
            finally:
                process.kill()

    return run
