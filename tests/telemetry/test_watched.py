"""What alerts and dashboard read is what the processes tell: every metric, label and label's value of every query.

A metric that is renamed in the code, or a label that goes, makes this fail; Prometheus would only show nothing.
"""

import re
from collections.abc import Iterator, Mapping
from typing import get_args, get_type_hints

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from ingress.app import ROUTES
from ops.console.app import ROUTES as CONSOLE_ROUTES
from ops.stack.standin import Standin
from shared.jobs import JobState
from shared.scripts import Admission
from shared.telemetry.metrics import child
from tests.deploy.promql import Selector
from tests.deploy.watched import RULES, TARGET_LABELS, queries
from tests.ingress.harness import Running, accepted
from tests.telemetry.test_metrics import SCRAPER
from tests.telemetry.test_metrics import console as console  # noqa: PLC0414 - a fixture, used by its name
from tests.turn.deployment import Deployment
from workers.delivery.books import Claimed
from workers.delivery.metrics import observe
from workers.delivery.outcome import Delivered
from workers.embeddings import metrics as embeddings
from workers.embeddings.query import Reason
from workers.ledger.book import Status
from workers.metrics import count_task
from workers.replies.outcome import State as ReplyState
from workers.replies.working import signals
from workers.turn.witness import Outcome

PROMETHEUS_OWN = {"up": {*TARGET_LABELS}, "ALERTS": {"environment", "alertname", "alertstate"}}
ENDED = {state.value for state in JobState if state.ended}
ROUTE_PATHS = {route.path for route in [*ROUTES, *CONSOLE_ROUTES]}
ADMITTED = {*get_args(get_type_hints(Admission)["outcome"]), "closed", "unavailable"}
VALUES: Mapping[tuple[str, str], set[str]] = {
    ("switchboard_jobs_ended_total", "state"): ENDED,
    ("switchboard_job_duration_seconds", "state"): ENDED,
    ("switchboard_attempts_total", "outcome"): set(get_args(Outcome)),
    ("switchboard_admissions_total", "outcome"): ADMITTED,
    ("switchboard_model_calls_total", "status"): set(get_args(Status)),
    ("switchboard_delivery_attempts_total", "kind"): set(get_args(get_type_hints(Claimed)["kind"])),
    ("switchboard_delivery_attempts_total", "outcome"): {"put_off", *get_args(ReplyState)},
    ("switchboard_embedding_queries_total", "outcome"): {"vector", *get_args(Reason)},
    ("switchboard_http_requests_total", "route"): ROUTE_PATHS,
    ("switchboard_http_requests_total", "status"): {"5..", "503"},
    ("switchboard_http_request_duration_seconds", "route"): ROUTE_PATHS,
}
"""What code may put into a label; what a short test makes it put there is less. Others are taken from the scrape."""

Told = dict[str, dict[str, set[str]]]


@pytest.fixture
async def told(console: httpx.AsyncClient, ingress: Running, deployment: Deployment, standin: Standin) -> Told:
    """Metric → label → values, as three processes tell after good turns, some that wait for a slot, a retried one, a
    dead one, and one for which every model is down.
    """
    await deployment.behave(
        {"match": "once", "faults": [{"cut_stream": True, "after_tokens": 3}], "output_tokens": 20},
        {"match": "never", "faults": [{"status": 400}]},
        {"match": "down", "faults": [{"status": 500, "times": 1_000}]},
        {"cached_tokens": 64, "latency_ms": 20},
    )
    other = {"anthropic_api_key": SecretStr("sk-test"), "anthropic_base_url": standin.url}
    narrow = {"openai_concurrency": 1, "breaker_failures": 3, "breaker_cooldown_s": 0.02, "cache_ttl_s": 300}
    async with deployment.worker(**other, **narrow), ingress.client() as client:
        waiting = [await accepted(client, message=f"fine {n}", conversation_id=f"fine-{n}") for n in range(3)]
        for job in waiting:
            await deployment.ended(job["id"])
        for text in ("once", "never", "down"):
            hook = "https://example.com/hook"  # its delivery stays open: nobody sends it here
            job = await accepted(client, message=text, conversation_id=text, callback_url=hook)
            await deployment.ended(job["id"])
        for asker in ("first", "second"):
            asked = {"message": "What is it?", "conversation_id": asker}
            job = (await client.post("/v1/agents/sales/messages", json=asked)).json()
            await deployment.ended(job["id"])
        observe("webhook", Delivered(200), 0.1)  # by a delivery process, whose numbers are in the same registry here
        _tell_embeddings()
        count_task("summary", "written")
        child(signals, "shown").inc()
        text = (await console.get("/metrics", headers=SCRAPER)).text
    return parsed(text)


def _tell_embeddings() -> None:
    """As a delivery process does, and a worker whose agents remember."""
    embeddings.batch("openai:small", 3, 0.1)
    embeddings.put_off("openai:small", "budget", 1)
    embeddings.pending("openai:small", 2)
    embeddings.reused("openai:small", 1)
    embeddings.query("vector")


def parsed(text: str) -> Told:
    found: Told = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def wanted_values(selector: Selector) -> Iterator[tuple[str, str]]:
    """(label, value) that the selector names, not those by a pattern or one of Grafana's variables."""
    for label, sign, text in selector.matchers:
        if label not in TARGET_LABELS and "$" not in text:
            yield from ((label, value) for value in (text.split("|") if sign.endswith("~") else [text]))


def known_values(told: Told, metric: str, label: str) -> set[str]:
    family = re.sub(r"_(bucket|count|sum)$", "", metric)
    return VALUES.get((family, label)) or told[metric].get(label, set())


async def test_every_query_reads_what_the_processes_tell(told: Told) -> None:
    recorded = {rule["record"]: {"environment"} for rule in RULES if "record" in rule}
    faults = []
    for where, query in queries().items():
        kept: set[str] = set()
        for selector in query.selectors:
            labels = PROMETHEUS_OWN.get(selector.metric) or recorded.get(selector.metric)
            if labels is None and selector.metric not in told:
                faults.append(f"{selector.metric} is told by no process: {where}")
                continue
            has = labels or {*told[selector.metric], *TARGET_LABELS}
            kept |= has
            faults += [
                f"{selector.metric} has no {label}: {where}" for label, _, _ in selector.matchers if label not in has
            ]
        faults += [f"nothing has {label}: {where}" for label in query.kept - kept]
    assert faults == []


async def test_every_value_a_query_asks_for_can_be_told(told: Told) -> None:
    faults = [
        f'{selector.metric} is never told with {label}="{value}": {where}'
        for where, query in queries().items()
        for selector in query.selectors
        if selector.metric in told
        for label, value in wanted_values(selector)
        if value not in known_values(told, selector.metric, label)
    ]
    assert faults == []


async def test_every_metric_of_ours_is_looked_at(told: Told) -> None:
    read = {selector.metric for query in queries().values() for selector in query.selectors}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in read}
    ours = {re.sub(r"_(bucket|count|sum)$", "", name) for name in told if name.startswith("switchboard_")}
    assert ours - families == set()


async def test_counters_that_alerts_watch_begin_at_zero(deployment: Deployment, told: Told) -> None:
    """Prometheus sees no increase in a counter that appears as 1."""
    assert told["switchboard_jobs_ended_total"]["state"] == ENDED
    assert told["switchboard_jobs_taken_over_total"]["agent"] >= {"support", "sales", "unknown"}
