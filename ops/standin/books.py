"""The provider's own books: what was served, by model and call by call, to compare a ledger with.

Every authorised, readable call is opened here and closed once. It is closed before the last bytes of its answer
leave, so that a caller who has the whole answer finds it booked. What a provider would bill is booked: the input of
every call it took on, and the output generated before the end, however the call ended.
"""

import asyncio
import time
from collections import Counter, deque
from types import TracebackType
from typing import Any, Literal

import msgspec

from ops.standin.answer import Usage
from ops.standin.ask import Ask, Provider

Status = Literal["served", "cut", "fault", "hung", "aborted"]
"""`fault`: an error status, an error event or an unreadable answer. `aborted`: the caller left first."""

_KEPT_REQUESTS = 10_000
_KEPT_CHARS = 1_000


class Entry(msgspec.Struct, frozen=True):
    """One call. `id` is the id in the answer, `request_id` the one in the response's headers."""

    id: str
    request_id: str
    provider: Provider
    operation: str
    model: str
    user_text: str
    """The last user message, its first 1,000 characters."""
    stream: bool
    status: Status
    fault: str | None
    """The fault that struck: an error status (`"429"`) or a kind (`"hang"`)."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    at_us: int
    """Arrival, Unix microseconds."""


class Books:
    def __init__(self) -> None:
        self._concurrency = 0
        self._gatherings: dict[int, asyncio.Event] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what was served. Calls still open stay in `concurrency` and are booked when they close."""
        self._requests: deque[Entry] = deque(maxlen=_KEPT_REQUESTS)
        self._by_model: dict[str, Counter[str]] = {}
        self._statuses: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._peak = self._concurrency

    def open(self, ask: Ask, *, provider: Provider, operation: str, call_id: str, request_id: str) -> "OpenCall":
        self._concurrency += 1
        self._peak = max(self._peak, self._concurrency)
        if (together := self._gatherings.pop(self._concurrency, None)) is not None:
            together.set()
        return OpenCall(self, ask, provider, operation, (call_id, request_id))

    def gathered(self, calls: int) -> asyncio.Event:
        """Set once `calls` have been under way at once since the last reset."""
        if self._peak >= calls:
            here = asyncio.Event()
            here.set()
            return here
        return self._gatherings.setdefault(calls, asyncio.Event())

    def enter(self, entry: Entry) -> None:
        """Only for `OpenCall.close`."""
        self._concurrency -= 1
        self._requests.append(entry)
        self._statuses[entry.status] += 1
        if entry.fault is not None:
            self._faults[entry.fault] += 1
        totals = self._by_model.setdefault(entry.model, Counter())
        totals["calls"] += 1
        for name in Usage._fields:
            totals[name] += getattr(entry, name)

    def served(self, *, last: int = _KEPT_REQUESTS) -> dict[str, Any]:
        """The body of `GET /_served`, with the `last` requests, oldest first, in the order they ended."""
        requests = list(self._requests)
        return {
            "calls": self._statuses.total(),
            "statuses": self._statuses,
            "by_model": self._by_model,
            "concurrency": self._concurrency,
            "concurrency_peak": self._peak,
            "faults": self._faults,
            "requests": requests[len(requests) - last if last < len(requests) else 0 :],
        }


class OpenCall:
    """A call in progress: a context manager that books it as aborted unless it was closed otherwise."""

    __slots__ = ("_at_us", "_books", "_closed", "_ids", "ask", "fault", "operation", "provider", "sent_tokens", "usage")

    def __init__(self, books: Books, ask: Ask, provider: Provider, operation: str, ids: tuple[str, str]) -> None:
        self._books = books
        self._ids = ids
        self._at_us = time.time_ns() // 1000
        self._closed = False
        self.ask = ask
        self.provider = provider
        self.operation = operation
        self.fault: str | None = None
        self.usage = Usage(ask.input_tokens, 0)
        """What the whole answer is billed."""
        self.sent_tokens = 0
        """Output tokens that have left so far."""

    def close(self, status: Status) -> None:
        """Book the call, once. A call that was not served to its end is billed the output that had left."""
        if self._closed:
            return
        self._closed = True
        usage = self.usage if status == "served" else self._partial_usage()
        self._books.enter(self._entry(status, usage))

    def reject(self) -> None:
        """Book a call that was turned down with an error status: it costs nothing."""
        self.usage, self.sent_tokens = Usage(0, 0), 0
        self.close("fault")

    def _partial_usage(self) -> Usage:
        reasoning = min(self.usage.reasoning_tokens, self.sent_tokens)
        return self.usage._replace(output_tokens=self.sent_tokens, reasoning_tokens=reasoning)

    def _entry(self, status: Status, usage: Usage) -> Entry:
        call_id, request_id = self._ids
        return Entry(
            id=call_id,
            request_id=request_id,
            provider=self.provider,
            operation=self.operation,
            model=self.ask.model,
            user_text=self.ask.last_user_text[:_KEPT_CHARS],
            stream=self.ask.stream,
            status=status,
            fault=self.fault,
            at_us=self._at_us,
            **usage._asdict(),
        )

    def __enter__(self) -> "OpenCall":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("aborted")
