"""The parts of the translation that need no server: waiting times and names."""

import time
from email.utils import formatdate

import httpx2
import pytest

from shared.errors import UpstreamRejected, UpstreamUnavailable
from workers.models import anthropic, openai
from workers.models.errors import Faults, of_stream, retry_after_s, unexpected_end


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, 3_600.0),
        ({"retry-after": "999999"}, 3_600.0),
        ({"retry-after": ""}, None),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_retry_after_as_a_date() -> None:
    assert retry_after_s({"retry-after": formatdate(time.time() + 3_000, usegmt=True)}) == pytest.approx(3_000, abs=100)
    assert retry_after_s({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0.0


def test_error_of_ours_passes_unchanged() -> None:
    error = UpstreamRejected("openai answered 400.", provider="openai", status=400)
    assert openai.FAULTS.translate(error) is error


def test_providers_prose_and_odd_names_are_left_out() -> None:
    fault = {"type": "invalid_request_error", "code": "bad code with words", "message": "Incorrect key sk-abc"}
    assert (
        str(of_stream("openai", fault, "req_1"))
        == "openai broke off its answer (invalid_request_error, request req_1)."
    )
    assert str(of_stream("openai", None, "req 1\n")) == "openai broke off its answer."
    assert "{" not in str(unexpected_end("openai", "{weird}", None))


def test_time_and_connection_are_told_apart() -> None:
    assert "did not finish in time" in str(anthropic.FAULTS.translate(TimeoutError()))
    assert "broke the connection" in str(anthropic.FAULTS.translate(ConnectionResetError()))
    assert "cannot be read" in str(anthropic.FAULTS.translate(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")))
    assert isinstance(anthropic.FAULTS.translate(TimeoutError()), UpstreamUnavailable)


@pytest.mark.parametrize("faults", [anthropic.FAULTS, openai.FAULTS], ids=["anthropic", "openai"])
def test_a_connection_that_broke_beneath_the_sdk_is_one_that_broke(faults: Faults) -> None:
    """Whatever the SDK wraps, and wherever httpx2 does not say more."""
    error = faults.unconnected(request=httpx2.Request("POST", "http://models.example"))
    assert str(faults.translate(error)) == f"{faults.provider} broke the connection."
