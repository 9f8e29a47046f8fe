"""One message's way as one trace: request → queue → turn → model calls.

The W3C context (`traceparent`) travels in the job's payload, with or without Sentry, so that lines name their trace.
Spans are made for the share `SWITCHBOARD_TRACE_SAMPLE` of requests, decided once, where the message comes in; a
request that is not sampled costs two random numbers here. Names and data of spans are ours: no words of anybody.
"""

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import msgspec

from shared.ids import random_hex
from shared.telemetry import reports

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_draw = random.Random().random  # noqa: S311 - chooses a sample


class Trace(msgspec.Struct, frozen=True):
    """A place in a trace; what comes next hangs below `span_id`, if anything stands above it yet."""

    trace_id: str
    span_id: str
    sampled: bool = False
    baggage: str = ""
    """Sentry's own context of the trace: project, environment, rate."""

    def headers(self) -> dict[str, str]:
        """What travels with a job."""
        parent = f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"
        return {"traceparent": parent, "baggage": self.baggage} if self.baggage else {"traceparent": parent}


def of_request(traceparent: str | None) -> Trace:
    """The caller's trace, else a new one. Whether it is recorded is ours to say: it costs us, not the caller."""
    sampled = reports.sample > 0 and _draw() < reports.sample
    if traceparent and (known := _parsed(traceparent)):
        return Trace(*known, sampled)
    made = random_hex(24)
    return Trace(made[:32], "" if sampled else made[32:], sampled)


def of_job(headers: Mapping[str, str]) -> Trace | None:
    """Inverse of `Trace.headers`; None for what another writer put there."""
    traceparent = headers.get("traceparent")
    known = _parsed(traceparent)
    if known is None or traceparent is None:
        return None
    sampled = reports.sdk is not None and traceparent[53:55] == "01"
    return Trace(*known, sampled, headers.get("baggage", ""))


def trace_id(headers: Mapping[str, str]) -> str | None:
    """As far as it is one of ours."""
    traceparent = headers.get("traceparent", "")
    return traceparent[3:35] if len(traceparent) == 55 else None


def _parsed(traceparent: str | None) -> tuple[str, str] | None:
    """Trace and parent id (W3C Trace Context §3.2); later versions are read as far as version 00 goes."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None or traceparent is None or traceparent.startswith("ff"):
        return None
    if traceparent.startswith("00") and len(traceparent) != 55:
        return None
    trace_id, span_id = found.groups()
    return (trace_id, span_id) if trace_id.strip("0") and span_id.strip("0") else None


class Span:
    """A span under way, or nothing at all; then it is its own context manager, the cheapest there is."""

    __slots__ = ("_recorded", "_trace")

    def __init__(self, trace: Trace | None = None, recorded: Any = None) -> None:
        self._trace, self._recorded = trace, recorded

    def __enter__(self) -> "Span":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    @property
    def recorded(self) -> bool:
        """Whether anything said to it is kept."""
        return self._recorded is not None

    def name(self, name: str, **tags: Any) -> None:
        """A request learns its route late."""
        if self._recorded is not None:
            self._recorded.name, self._recorded.source = name, "route"
            self.tell(**tags)

    def tell(self, **data: Any) -> None:
        """Ids and numbers."""
        if self._recorded is not None:
            for key, value in data.items():
                self._recorded.set_data(key, value)

    def past(self, op: str, name: str, *, seconds: float) -> None:
        """A child that began with this span and took `seconds`: what was waited for before we knew of it."""
        if self._recorded is not None:
            began = self._recorded.start_timestamp
            child = self._recorded.start_child(op=op, name=name, start_timestamp=began)
            child.finish(end_timestamp=datetime.fromtimestamp(began.timestamp() + seconds, UTC))

    def onward(self) -> Trace | None:
        """The trace for what hangs below this span."""
        if self._recorded is None or self._trace is None:
            return self._trace
        baggage = self._recorded.get_baggage().serialize()
        return Trace(self._trace.trace_id, self._recorded.span_id, True, baggage)


NOTHING = Span()


def root(trace: Trace | None, op: str, name: str, *, ago_s: float = 0.0) -> AbstractContextManager[Span]:
    """This process's part of the trace, begun `ago_s` ago. What is logged as an error meanwhile belongs to it."""
    if trace is None:
        return NOTHING
    if reports.sdk is None or not trace.sampled:
        return Span(trace)
    return _recorded_root(reports.sdk, trace, op, name, ago_s)


@contextmanager
def _recorded_root(sdk: ModuleType, trace: Trace, op: str, name: str, ago_s: float) -> Iterator[Span]:
    headers = {"baggage": trace.baggage} if trace.baggage else {}
    if trace.span_id:
        headers["sentry-trace"] = f"{trace.trace_id}-{trace.span_id}-1"
    with sdk.isolation_scope():
        transaction = sdk.continue_trace(headers, op=op, name=name, source="custom")
        transaction.trace_id, transaction.sampled = trace.trace_id, True
        if ago_s:
            began = transaction.start_timestamp.timestamp() - ago_s
            transaction.start_timestamp = datetime.fromtimestamp(began, UTC)
        with sdk.start_transaction(transaction):
            transaction.sample_rate = reports.sample  # the SDK believes a decision of ours to be a rate of 1
            try:
                yield Span(trace, transaction)
            except BaseException:
                transaction.set_status("internal_error")
                raise
            finally:  # the SDK would count from a clock that does not know of `ago_s`
                transaction.finish(end_timestamp=datetime.now(UTC))


def span(op: str, name: str, **data: Any) -> AbstractContextManager[Span]:
    """A part of what is being recorded, if anything is."""
    sdk = reports.sdk
    if sdk is None or sdk.get_current_span() is None:
        return NOTHING
    return _recorded_span(sdk, op, name, data)


@contextmanager
def _recorded_span(sdk: ModuleType, op: str, name: str, data: Mapping[str, Any]) -> Iterator[Span]:
    with sdk.start_span(op=op, name=name) as recorded:
        part = Span(None, recorded)
        part.tell(**data)
        yield part
