"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)  # seconds
PACES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)  # seconds


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        model = ["model"]
        self._requests = Counter(
            "ingot_requests", "Requests by outcome", ["endpoint", "outcome"], registry=self._registry
        )
        self.read = Counter("ingot_prompt_tokens", "Tokens of prompts", model, registry=self._registry)
        self.written = Counter("ingot_generated_tokens", "Tokens written", model, registry=self._registry)
        self.waiting = Gauge("ingot_queue_length", "Answers that wait for a slot", model, registry=self._registry)
        self.busy = Gauge("ingot_busy_slots", "Slots that write an answer", model, registry=self._registry)
        self.slots = Gauge("ingot_slots", "Slots", model, registry=self._registry)
        self.wait = Histogram(
            "ingot_time_to_first_token_seconds",
            "From a request's arrival to the first token of an answer",
            model,
            buckets=WAITS,
            registry=self._registry,
        )
        self.pace = Histogram(
            "ingot_time_per_token_seconds",
            "Mean time between an answer's tokens after the first",
            model,
            buckets=PACES,
            registry=self._registry,
        )

    def count(self, endpoint: str, outcome: str) -> None:
        """One request has ended."""
        self._requests.labels(endpoint, outcome).inc()

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)


class Meter:
    """What is counted of one model."""

    def __init__(self, metrics: Metrics, model: str):
        self._wait, self._pace = metrics.wait.labels(model), metrics.pace.labels(model)
        self._read, self._written = metrics.read.labels(model), metrics.written.labels(model)
        self._gauges = metrics.waiting.labels(model), metrics.busy.labels(model), metrics.slots.labels(model)

    def watch(self, waiting: Callable[[], int], busy: Callable[[], int], slots: int) -> None:
        """Ask these whenever somebody looks."""
        waits, works, has = self._gauges
        waits.set_function(waiting)
        works.set_function(busy)
        has.set(slots)

    def first_token(self, seconds: float) -> None:
        """An answer has begun, this long after it was asked for."""
        self._wait.observe(seconds)

    def ended(self, read: int, written: int, seconds: float) -> None:
        """An answer has left its slot with `written` tokens, `seconds` after its first one."""
        self._read.inc(read)
        self._written.inc(written)
        if written > 1:
            self._pace.observe(seconds / (written - 1))
