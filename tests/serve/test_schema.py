"""Property-based tests from the server's own OpenAPI description: it keeps to it, and never fails by its own fault."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis")

OPERATIONS = [
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/health", "GET"),
    ("/metrics", "GET"),
]


@pytest.fixture(scope="module")
def description(server: SimpleNamespace) -> Any:
    """The server's description of itself."""
    found = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    assert sorted(OPERATIONS) == sorted((one.ok().path, one.ok().method.upper()) for one in found.get_all_operations())
    return found


def campaign(description: Any, path: str, method: str, mode: Any, examples: int) -> list[int]:
    """Ask so many requests that keep to the description, or don't, and check each answer; its statuses."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    kept_to = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    statuses: list[int] = []

    @settings(
        max_examples=examples,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=description[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        statuses.append(case.call_and_validate(checks=kept_to).status_code)

    ask()
    return statuses


def expected(mode: Any) -> int:
    """The status of some of the requests, or else they don't reach what they are to try."""
    return 200 if mode is schemathesis.GenerationMode.POSITIVE else 400


MODES = pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)


@pytest.mark.parametrize(("path", "method"), OPERATIONS[:2])
@MODES
def test_no_request_makes_the_server_fail(description, path, method, mode):
    assert expected(mode) in campaign(description, path, method, mode, 20)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS[:2])
@MODES
def test_no_request_of_many_makes_the_server_fail(description, path, method, mode):
    assert expected(mode) in campaign(description, path, method, mode, 300)


@pytest.mark.parametrize(("path", "method"), OPERATIONS[2:])
def test_what_takes_no_body_keeps_to_its_description(description, path, method):
    statuses = campaign(description, path, method, schemathesis.GenerationMode.POSITIVE, 10)
    assert set(statuses) == {404 if "{name}" in path else 200}  # there is no model of a made-up name
