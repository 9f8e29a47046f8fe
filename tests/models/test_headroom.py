"""What is read of the providers' rate-limit headers, and what their answers carry of it."""

import time

import httpx
import pytest

from ops.stack.standin import Standin
from shared.errors import UpstreamRateLimited
from tests.models.conftest import MakeProvider, Provider
from workers.models import headroom


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1m30.5s", 90.5),
        ("8.64s", 8.64),
        ("0s", 0.0),
        ("2h3m", 3_600.0),  # an hour at most
        ("7", 7.0),
        ("1d", 3_600.0),
    ],
)
def test_openai_says_when_in_durations(reset: str, seconds: float) -> None:
    read = headroom.of_openai({"x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": reset})
    assert read is not None
    assert read.left == {"tokens": (149_984, pytest.approx(seconds))}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-remaining-requests": "5"},
        {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"},
        {"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "1s"},
        {"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "soon"},
        {"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "nan"},
        {"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1s later"},
        {"x-ratelimit-remaining-requests": "²", "x-ratelimit-reset-requests": "1s"},
    ],
)
def test_what_cannot_be_read_says_nothing(headers: dict[str, str]) -> None:
    assert headroom.of_openai(headers) is None
    assert headroom.of_anthropic(headers) is None


def test_anthropic_says_when_by_its_own_clock() -> None:
    read = headroom.of_anthropic(
        {
            "date": "Sat, 21 Nov 2026 12:00:00 GMT",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:02Z",
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2026-11-21T13:00:30+01:00",
            "anthropic-ratelimit-input-tokens-remaining": "1000",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-21T11:59:00Z",
            "anthropic-ratelimit-output-tokens-remaining": "1000",
            "anthropic-ratelimit-output-tokens-reset": "never",
        }
    )
    assert read is not None
    assert read.left == {"requests": (49, 2.0), "tokens": (0, 30.0), "input": (1_000, 0.0)}
    assert read.heard_s == pytest.approx(time.monotonic(), abs=60.0)


HEADERS = {
    "openai": {"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "20s"},
    "anthropic": {
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": "2099-01-01T00:00:00Z",
    },
}


async def test_an_answer_carries_what_is_left(kind: str, provider: Provider, standin: Standin) -> None:
    await behave(standin, headers=HEADERS[kind])
    completion = await provider.ask()
    assert completion.headroom is not None
    assert completion.headroom.left["requests"][0] == 3


async def test_a_rate_limit_without_retry_after_says_when_by_what_is_used_up(
    make_provider: MakeProvider, standin: Standin
) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}
    await behave(standin, faults=[{"status": 429, "headers": headers}])
    with pytest.raises(UpstreamRateLimited) as caught:
        await make_provider("openai", standin.url).ask()
    assert caught.value.retry_after_s == pytest.approx(9.0)


async def behave(standin: Standin, **rule: object) -> None:
    async with httpx.AsyncClient(base_url=standin.url) as client:
        (await client.post("/_behaviour", json=rule)).raise_for_status()
