"""Numbers counted without prometheus_client are shown as by it."""

import random

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ingress import metrics
from shared.telemetry.counts import Counts, Durations, Level
from shared.telemetry.metrics import QUICK_S
from tests.telemetry.numbers import numbers

SECONDS = [0.0, 0.001, 0.0010001, 0.02, 0.5, 60.0, 61.5, *(random.Random(7).uniform(0, 2) for _ in range(50))]  # noqa: S311


@pytest.fixture
def ours() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def theirs() -> CollectorRegistry:
    return CollectorRegistry()


def test_a_counter(ours: CollectorRegistry, theirs: CollectorRegistry) -> None:
    counts = Counts("a_b", "What it is.", ["x", "y"], registry=ours)
    counter = Counter("a_b", "What it is.", ["x", "y"], registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
    for labels in [("1", "2"), ('"', "\\\n"), ("1", "2")]:
        counts.of[labels] += 1
        counter.labels(*labels).inc()
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_gauge(ours: CollectorRegistry, theirs: CollectorRegistry) -> None:
    level, gauge = Level("a", "What it is.", registry=ours), Gauge("a", "What it is.", registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
    level.now += 3
    gauge.inc(3)
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_histogram(ours: CollectorRegistry, theirs: CollectorRegistry) -> None:
    durations = Durations("a_seconds", "What it is.", ["x", "y"], bounds_s=QUICK_S, registry=ours)
    histogram = Histogram("a_seconds", "What it is.", ["x", "y"], buckets=QUICK_S, registry=theirs)
    for n, seconds in enumerate(SECONDS):
        labels = str(n % 3), "b"
        durations.observe(labels, seconds)
        histogram.labels(*labels).observe(seconds)
    assert numbers(generate_latest(ours).decode()) == numbers(generate_latest(theirs).decode())
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_method_that_nobody_knows_makes_no_series_of_its_own() -> None:
    before = numbers(generate_latest(metrics.REGISTRY).decode())
    metrics.count_request("/x", "BREW", 405, 0.1)
    after = numbers(generate_latest(metrics.REGISTRY).decode())
    new = {name for name, value in after.items() if value != before.get(name) and "route=/x" in name}
    assert "switchboard_http_requests_total{method=other,route=/x,status=405}" in new
    assert not any("BREW" in name for name in new)
