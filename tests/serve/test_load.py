"""Many clients at once: each answer is the one that its request has alone, and all together get more than one."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import save_model
from ingot.model.initial import Scaled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CLIENTS, SECONDS = 64, 60
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "state", "of", "union", "is", "speech"]


@pytest.fixture
def served(tokenizer: Any, tmp_path: Path) -> Path:
    """A model of the demo's size in its own folder, with random weights."""
    torch.manual_seed(0)
    shape = {"context": 256, "layers": 4, "hidden_size": 256, "heads": 4}
    arch = Architecture(family="qwen3", vocabulary=tokenizer.vocabulary, **shape)
    save_model(Decoder(arch, init=Scaled(width=0.5)), tmp_path / "load", end=tokenizer.end)
    tokenizer.save(tmp_path / "load")
    return tmp_path / "load"


def requests() -> list[dict[str, Any]]:
    """Requests of many lengths, some greedy and some drawn, some streamed; each has one answer."""
    draw = random.Random(0)
    return [
        {
            "messages": [{"role": "user", "content": " ".join(draw.choices(WORDS, k=draw.randint(1, 25)))}],
            "temperature": draw.choice([0, 0.7, 1.0, 1.3]),
            "top_p": draw.choice([0.9, 1.0]),
            "top_k": draw.choice([0, 40]),
            "seed": number,
            "max_tokens": draw.randint(5, 80),
            "stream": draw.random() < 0.5,
        }
        for number in range(60)
    ]


async def ask(client: httpx.AsyncClient, asked: dict[str, Any]) -> tuple[int, str]:
    """The status, and the text of the answer; who is told to come again later waits for as long as it is told."""
    answer = await client.post("/v1/chat/completions", json=asked)
    if answer.status_code == 429:
        await asyncio.sleep(int(answer.headers["retry-after"]))
    if answer.status_code != 200 or not asked["stream"]:
        return answer.status_code, answer.json()["choices"][0]["message"]["content"] if answer.is_success else ""
    *events, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]"
    return 200, "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events)


async def written(client: httpx.AsyncClient) -> float:
    """Tokens that the server has written so far."""
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("ingot_generated_tokens_total"))


class Watch:
    """Tokens that a server writes, by the clock and by the seconds of processor that it takes for them."""

    def __init__(self, client: httpx.AsyncClient, server: psutil.Process):
        self._client, self._server = client, server

    async def begin(self) -> None:
        self._begun = time.monotonic(), sum(self._server.cpu_times()[:2]), await written(self._client)

    async def rates(self) -> tuple[float, float]:
        tokens = await written(self._client) - self._begun[2]
        busy = sum(self._server.cpu_times()[:2]) - self._begun[1]
        return tokens / (time.monotonic() - self._begun[0]), tokens / busy


async def load(url: str, server: psutil.Process) -> tuple[Counter[int], tuple[float, float], tuple[float, float]]:
    """Statuses of all requests, and the rates of one client and of many."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        asked, alone = requests(), {}
        watch = Watch(client, server)
        await watch.begin()
        for number, one in enumerate(asked):
            status, alone[number] = await ask(client, one)
            assert status == 200
        single = await watch.rates()

        statuses: Counter[int] = Counter()

        async def visit(seed: int) -> None:
            draw = random.Random(seed)
            while time.monotonic() < end:
                number = draw.randrange(len(asked))
                status, text = await ask(client, asked[number])
                statuses[status] += 1
                assert status in (200, 429)
                assert status == 429 or text == alone[number]

        await watch.begin()
        end = time.monotonic() + SECONDS
        await asyncio.gather(*map(visit, range(CLIENTS)))
        return statuses, single, await watch.rates()


def test_64_clients_at_once_get_the_answers_that_one_gets(start: Callable[..., Any], served: Path):
    with start(served, "--slots", "16", "--queue", "32") as server:
        statuses, single, together = asyncio.run(load(server.url, psutil.Process(server.popen.pid)))
        metrics = httpx.get(server.url + "/metrics").text
    assert f'outcome="ok"}} {float(statuses[200] + len(requests()))}' in metrics
    by_clock, by_processor = (many / one for one, many in zip(single, together, strict=True))
    print(f"{dict(statuses)}; one client {single[0]:.0f} tokens/s, all together {together[0]:.0f}: {by_clock:.2f}x")
    print(f"a second of processor: {single[1]:.0f} and {together[1]:.0f} tokens: {by_processor:.2f}x")
    assert statuses[200] > CLIENTS and statuses[429]
    assert by_clock >= 3
