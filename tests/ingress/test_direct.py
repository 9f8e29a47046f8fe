"""The short way of a message through the application: it differs from Starlette's in price only."""

import json

import pytest

from ingress.requests import first_headers, header
from tests.ingress.harness import MESSAGES, Running


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", MESSAGES, 405),
        ("POST", f"{MESSAGES}/", 404),
        ("POST", "/v1/agents/a/b/messages", 404),
        ("POST", "/v1/agents//messages", 404),
        ("POST", "/v1/agents/nobody/messages", 404),
        ("POST", f"{MESSAGES}%0A", 202),  # as the route's own pattern has it
        ("POST", MESSAGES, 202),
    ],
)
async def test_the_route_decides_what_goes_the_short_way(running: Running, method: str, path: str, status: int) -> None:
    async with running.client() as client:
        response = await client.request(method, path, json={"message": "a"})
    assert response.status_code == status
    assert response.headers["x-request-id"]


async def test_a_fault_of_ours_on_the_short_way_is_a_problem_with_the_id_of_the_request(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_given: object, **_named: object) -> None:
        raise ZeroDivisionError("the user's words")

    monkeypatch.setattr(running.ingress.intake, "admit", broken)
    async with running.client() as client:
        response = await client.post(MESSAGES, json={"message": "a"}, headers={"x-request-id": "r-1"})
    assert response.status_code == 500
    assert response.json()["type"] == "/problems/internal_error"
    assert response.json()["request_id"] == response.headers["x-request-id"] == "r-1"
    assert "words" not in json.dumps(response.json())


async def test_an_empty_idempotency_key_is_refused_and_not_overlooked(running: Running) -> None:
    async with running.client() as client:
        response = await client.post(MESSAGES, json={"message": "a"}, headers={"idempotency-key": ""})
    assert response.status_code == 400


def test_of_headers_with_one_name_the_first_counts() -> None:
    scope = {"headers": [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]}
    assert dict(first_headers(scope)) == {b"a": b"1", b"b": b"2"}
    assert (header(scope, b"a"), header(scope, b"c")) == ("1", "")
