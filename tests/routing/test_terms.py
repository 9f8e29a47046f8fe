"""What goes to the script with an offer, and what it is told of a call: the words `_provider.lua` reads."""

import time

import pytest

from agents.api import Completion, Headroom
from shared.config import Settings
from shared.errors import (
    AccountRejected,
    AgentError,
    SwitchboardError,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from shared.jobs import Usage
from workers.routing.terms import Terms, best, refused, told_of


def completion(headroom: Headroom | None = None) -> Completion:
    return Completion("hello", "stop", Usage(), "openai", "m", headroom=headroom)


def test_terms_are_the_settings_of_the_provider() -> None:
    settings = Settings.read(
        {
            "openai_concurrency": 5,
            "openai_rpm": 60,
            "anthropic_tpm": 9_000,
            "provider_patience_s": 1.5,
            "breaker_failures": 7,
            "breaker_window_s": 20,
            "breaker_cooldown_s": 4,
        }
    )
    terms = Terms(settings)
    assert terms.of("openai", input_tokens=120, output_tokens=500) == "5 60 - 1500 7 20000 4000 120 500"
    assert terms.of("anthropic", input_tokens=1, output_tokens=2) == "- - 9000 1500 7 20000 4000 1 2"


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (completion(), "ok - -"),
        (UpstreamUnavailable("x"), "fail - -"),
        (UpstreamUnavailable("x", retry_after_s=0.25), "fail 250 -"),
        (UpstreamRateLimited("x"), "- - -"),
        (UpstreamRateLimited("x", retry_after_s=20.0), "- 20000 -"),
        (UpstreamRejected("x", status=400), ""),
        (AccountRejected("x", status=401), "account 300000"),
    ],
    ids=str,
)
def test_only_a_providers_own_faults_count_against_it(outcome: Completion | UpstreamError, told: str) -> None:
    assert told_of(outcome) == told


def test_what_is_left_is_told_with_its_age_and_what_has_run_out_is_not() -> None:
    headroom = Headroom({"requests": (3, 60.0), "tokens": (0, 5.0), "output": (7, 10.5)}, time.monotonic() - 10.0)
    verdict, pause, age_ms, *left = told_of(completion(headroom)).split()
    assert (verdict, pause) == ("ok", "-")
    assert 10_000 <= int(age_ms) < 11_000
    assert left[0] == "3"
    assert 49_000 < int(left[1]) <= 50_000
    assert left[2:6] == ["-"] * 4, "tokens were full again 5 s ago; of input tokens nothing was said"
    assert left[6] == "7"
    assert 0 < int(left[7]) <= 500


@pytest.mark.parametrize(
    ("reason", "kind", "retryable"),
    [
        ("open", UpstreamUnavailable, True),
        ("account", AccountRejected, False),
        ("paused", UpstreamRateLimited, True),
        ("tokens", UpstreamRateLimited, True),
        ("too_large", AgentError, False),
    ],
)
def test_why_nobody_could_be_asked(reason: str, kind: type[SwitchboardError], retryable: bool) -> None:
    error = refused("openai", "m", reason, 12.0)
    assert type(error) is kind
    assert error.retryable is retryable
    if isinstance(error, UpstreamError):
        waits_s = None if kind is AccountRejected else 12.0
        assert (error.retry_after_s, error.billed) == (waits_s, False)


def test_of_several_failures_the_one_that_promises_most_decides() -> None:
    soon, late = UpstreamUnavailable("soon"), UpstreamRateLimited("late", retry_after_s=30.0)
    final = AccountRejected("final")
    assert best([late, soon]) is soon
    assert best([final, late]) is late
    assert best([final]) is final
