"""What a worker counts: jobs, attempts, model calls, money; and the state of its queue's worker, read at the scrape.

Called by the turn. Agents, models and error codes come from code and settings, so that labels stay few; a name that is
no agent of ours counts as `unknown`. The ledger is the truth about money, these are for charts: a killed process takes
what it counted since the last scrape with it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.jobs import JobState
from shared.telemetry.metrics import REGISTRY, SLOW_S, child
from workers.ledger.book import LedgerRow
from workers.queue.worker import LeaseWorker

UNKNOWN = "unknown"
NANO = 1e9


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"switchboard_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str) -> Histogram:
    return Histogram(f"switchboard_{name}_seconds", text, labels, registry=REGISTRY, buckets=SLOW_S)


jobs_ended = _counter("jobs_ended", "Jobs whose end is in Postgres.", "agent", "state")
attempts = _counter("attempts", "Attempts that are over.", "agent", "outcome")
retries = _counter("retries", "Attempts that failed and are made again.", "agent", "code")
taken_over = _counter("jobs_taken_over", "Attempts after one whose worker vanished.", "agent")
job_wait = _histogram("job_wait", "From accepted to the first start.", "agent")
job_duration = _histogram("job_duration", "From accepted to the end in Postgres.", "agent", "state")
attempt_duration = _histogram("attempt_duration", "From claimed to the end of one attempt.", "agent")
first_token = _histogram("first_token", "From accepted to the first piece of the reply that stood.", "agent")
_calls = _counter("model_calls", "Model calls that are over.", "provider", "model", "status")
_call_duration = _histogram("model_call_duration", "Model calls.", "provider", "model")
_call_first_token = _histogram("model_first_token", "From the call to its first text.", "provider", "model")
_tokens = _counter("model_tokens", "Tokens; cached and cache_write are part of input, reasoning of output.",
                   "agent", "provider", "model", "kind")  # fmt: skip
_cost = _counter("model_cost_usd", "Charged by the price list, in USD.", "agent", "provider", "model")
_fallbacks = _counter("model_fallbacks", "Calls made with another model as this one failed.", "provider", "model")
_refusals = _counter("model_refusals", "Times a model was not asked: open, paused, or out of what it allows.",
                     "provider", "model", "reason")  # fmt: skip
_waits = _histogram("provider_wait", "Turns that had to wait for a provider.", "provider")
_under_way = Gauge("switchboard_model_calls_running", "Model calls under way.", ["provider"], registry=REGISTRY)
_degraded = _counter("replies_degraded", "Replies that no model made.", "agent", "why", "source")

_recalls = _counter("recalls", "Turns of agents with memory, by what they recalled with.", "agent", "result")
_tasks = _counter("memory_tasks", "Claims of memory's tasks that are over.", "kind", "outcome")

cache_lookups = _counter("cache_lookups", "Questions that may have a kept answer.", "agent", "result")
cache_wait = _histogram("cache_wait", "From the question to the kept answer.", "agent")
cache_saved = _counter("cache_saved_usd", "What kept answers would have cost, in USD.", "agent", "provider", "model")
cache_evictions = _counter("cache_evictions", "Answers dropped before their time, for want of room.")
cache_failures = _counter("cache_failures", "Times the cache's server did not answer.")
cache_bytes = Gauge("switchboard_cache_bytes", "All kept answers, when one was added last.", registry=REGISTRY)


def expect(agents: Iterable[str]) -> None:
    """Zeros for what alerts watch: in a counter that appears as 1 Prometheus sees no increase."""
    for agent in (*agents, UNKNOWN):
        child(taken_over, agent)
        for state in JobState:
            if state.ended:
                child(jobs_ended, agent, state.value)


def count_call(row: LedgerRow, agent: str) -> None:
    """A settled call, or a lost one that was found; one that was never sent does not count."""
    if row.status == "unsent":
        return
    where = row.provider, row.model
    child(_calls, *where, row.status).inc()
    if row.latency_ms is not None:
        child(_call_duration, *where).observe(row.latency_ms / 1000)
    if row.ttft_ms is not None:
        child(_call_first_token, *where).observe(row.ttft_ms / 1000)
    count_use(row, agent)


def count_use(row: LedgerRow, agent: str) -> None:
    """Tokens and cost alone: of a part of a call that was made for several."""
    where = row.provider, row.model
    kinds = {
        "input": row.input_tokens,
        "output": row.output_tokens,
        "cached": row.cached_tokens,
        "cache_write": row.cache_write_tokens,
        "reasoning": row.reasoning_tokens,
    }
    for kind, tokens in kinds.items():
        if tokens:
            child(_tokens, agent, *where, kind).inc(tokens)
    child(_cost, agent, *where).inc(row.cost_nano_usd / NANO)


def count_fallback(provider: str, model: str) -> None:
    child(_fallbacks, provider, model).inc()


def count_refusal(provider: str, model: str, reason: str) -> None:
    """`reason` is the script's, or `passed_over`: another one was called instead."""
    child(_refusals, provider, model, reason).inc()


def count_wait(provider: str, seconds: float) -> None:
    child(_waits, provider).observe(seconds)


@contextmanager
def calling(provider: str) -> Iterator[None]:
    """Around a call."""
    with child(_under_way, provider).track_inprogress():
        yield


def count_degraded(agent: str, why: str, source: str) -> None:
    """`why`: budget or providers; `source`: cached or template."""
    child(_degraded, agent, why, source).inc()


def count_recall(agent: str, result: str) -> None:
    """`whole`, `words_only` or `none`."""
    child(_recalls, agent, result).inc()


def count_task(kind: str, outcome: str) -> None:
    child(_tasks, kind, outcome).inc()


def count_saved(row: LedgerRow) -> None:
    """A row of a kept answer: no call, so it counts among none of theirs."""
    child(cache_saved, row.agent, row.provider, row.model).inc(row.saved_nano_usd / NANO)


class WorkerState(Collector):
    """One worker's slots, lease and counts."""

    def __init__(self, worker: LeaseWorker, queue: str) -> None:
        self._worker, self._queue = worker, queue

    def collect(self) -> Iterable[Metric]:
        worker = self._worker
        gauges = {
            "worker_jobs_running": ("Slots in use.", len(worker.tasks)),
            "worker_slots": ("Jobs it may run at once.", worker.max_jobs),
            "worker_ready": ("1 with a lease and not draining.", int(worker.has_lease and not worker.draining)),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(f"switchboard_{name}", text, labels=["queue"])
            gauge.add_metric([self._queue], value)
            yield gauge
        counters = {
            "jobs_claimed": ("Jobs taken from the queue.", worker.claimed_count),
            "leases_lost": ("Times it had to stop all it ran.", worker.leases_lost),
        }
        for name, (text, value) in counters.items():
            counter = CounterMetricFamily(f"switchboard_{name}", text, labels=["queue"])
            counter.add_metric([self._queue], value)
            yield counter

    def describe(self) -> Iterable[Metric]:
        """Empty: the registry would otherwise collect once to learn the names."""
        return ()
