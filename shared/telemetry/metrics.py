"""Numbers for Prometheus: the one registry of this process, and what every process tells of itself.

Ingress and workers declare their own metrics on `REGISTRY` at import and count into them; `exposition` is what a scrape
gets. No label can grow without bound: agents, models and routes come from code, and no metric is labelled by tenant
(ten thousand tenants times ten buckets times every process; the ledger and the wide lines answer for one tenant).
"""

import asyncio
import hmac
import platform
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from typing import TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import SecretStr

from shared.db import Pool
from shared.errors import Unavailable
from shared.redis import Commands

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series and answer no question
REGISTRY = CollectorRegistry()
M = TypeVar("M", Counter, Histogram)
CONTENT_TYPE = CONTENT_TYPE_LATEST

QUICK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Buckets for what should take milliseconds and may take a minute."""
SLOW_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Buckets for what waits for models and queues."""

LOOK_EVERY_S = 0.5
PING_EVERY_LOOKS = 10

_loop_lag = Histogram(
    "switchboard_event_loop_lag_seconds", "How late a timer fired.", registry=REGISTRY, buckets=QUICK_S[:12]
)
_ping = Histogram(
    "switchboard_redis_ping_seconds", "A PING among our commands.", registry=REGISTRY, buckets=QUICK_S[:12]
)
_ping_failures = Counter("switchboard_redis_ping_failures", "PINGs that Redis did not answer.", registry=REGISTRY)

ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)
_build = Info("switchboard_build", "This process's code.", registry=REGISTRY)
_build.info({"version": version("switchboard"), "python": platform.python_version()})


@cache
def child(metric: M, *labels: str) -> M:
    """`metric.labels(*labels)`, looked up for a tenth of its price. Labels are few, so this stays small."""
    return metric.labels(*labels)


def exposition() -> bytes:
    """Everything this process knows, as Prometheus text."""
    return generate_latest(REGISTRY)


def opens(token: SecretStr | None, authorization: str) -> bool:
    """Whether an `Authorization` header carries the scraper's token; without one set, none does."""
    if token is None:
        return False
    expected = f"Bearer {token.get_secret_value()}".encode()
    return hmac.compare_digest(authorization.encode("utf-8", "replace"), expected)


@asynccontextmanager
async def vitals(
    commands: Callable[[], Sequence[Commands]], pools: Callable[[], Sequence[Pool]]
) -> AsyncIterator[None]:
    """While the block lasts: how late the loop is, how quick Redis is (over the first one), how full the pools are."""
    collector = _Links(commands, pools)
    REGISTRY.register(collector)
    looking = asyncio.ensure_future(_look(commands()[0]))
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
        looking.cancel()
        await asyncio.wait([looking])


async def _look(commands: Commands) -> None:
    looks = 0
    while True:
        due_at = time.perf_counter() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        _loop_lag.observe(max(0.0, time.perf_counter() - due_at))
        looks += 1
        if looks % PING_EVERY_LOOKS == 0:
            await _time_ping(commands)


async def _time_ping(commands: Commands) -> None:
    asked_at = time.perf_counter()
    try:
        await commands.run("PING")
    except Unavailable:
        _ping_failures.inc()
    else:
        _ping.observe(time.perf_counter() - asked_at)


class _Links(Collector):
    """What connections know of themselves, read at the scrape."""

    def __init__(self, commands: Callable[[], Sequence[Commands]], pools: Callable[[], Sequence[Pool]]) -> None:
        self._commands, self._pools = commands, pools

    def collect(self) -> Iterable[Metric]:
        trips = sum(each.round_trips for each in self._commands())
        yield CounterMetricFamily("switchboard_redis_round_trips", "Writes to Redis.", value=trips)
        usages = [pool.usage() for pool in self._pools()]
        connections = GaugeMetricFamily(
            "switchboard_postgres_pool_connections", "Open connections to Postgres.", labels=["state"]
        )
        connections.add_metric(["in_use"], sum(usage.in_use for usage in usages))
        connections.add_metric(["idle"], sum(usage.idle for usage in usages))
        yield connections
        limit = sum(usage.limit for usage in usages)
        yield GaugeMetricFamily("switchboard_postgres_pool_limit_connections", "The most there may be.", value=limit)

    def describe(self) -> Iterable[Metric]:
        """Empty: the registry would otherwise collect once to learn the names."""
        return ()
