"""What the stand-in took, in order, and how it was told to misbehave.

    GET /messengers/_served      every request, the oldest first                  DELETE forgets, faults included
    POST /messengers/_faults     [{"provider": "slack", "kind": "refuse", "status": 429, "retry_after_s": 2}]
    POST /messengers/_hooks      {"<phone number id>": {"url": …, "secret": …, "statuses": ["sent", "read"]}}

A fault strikes `times` requests, those with `match` in their text, and is then used up.
"""

import itertools
import time
from typing import Annotated, Any, Literal

import msgspec

ProviderName = Literal["whatsapp", "twilio", "telegram", "slack"]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`refuse`: with `status` and the provider's own `code`. `cut`: the connection ends within the answer. `hang`: no
    answer. `status_first`: a status comes before the answer. `fail_later`: taken, and then a status says failed."""

    provider: ProviderName
    kind: Literal["refuse", "cut", "hang", "status_first", "fail_later"]
    match: str = ""
    times: Annotated[int, msgspec.Meta(ge=1)] = 1
    status: int = 400
    code: int | str = 0
    retry_after_s: float | None = None
    taken: bool = True
    """Of `cut` and `hang`: whether the message was."""


class StatusHook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where WhatsApp tells statuses of a number, signed with the app's secret."""

    url: str
    secret: str
    statuses: tuple[str, ...] = ("sent", "delivered")


class Entry(msgspec.Struct, kw_only=True):
    """A request."""

    number: int
    provider: ProviderName
    kind: Literal["message", "working"]
    to: str
    text: str
    outcome: str
    """`taken`, or the error that it was answered with."""
    id: str | None = None
    """Of what was taken."""
    reference: str | None = None
    quoted: str | None = None
    template: str | None = None
    thread: str | None = None
    at_s: float = 0.0
    """Unix s."""


class Books:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.hooks: dict[str, StatusHook] = {}
        self._faults: list[list[Any]] = []
        self._due: dict[tuple[str, str], float] = {}
        self._numbers = itertools.count(1)

    def reset(self) -> None:
        self.entries, self.hooks, self._faults, self._due = [], {}, [], {}

    def misbehave(self, faults: list[Fault]) -> None:
        """In place of those before."""
        self._faults = [[fault, fault.times] for fault in faults]

    def fault_for(self, provider: ProviderName, text: str) -> Fault | None:
        for left in self._faults:
            fault: Fault = left[0]
            if left[1] and fault.provider == provider and fault.match in text:
                left[1] -= 1
                return fault
        return None

    def note(self, entry: Entry) -> Entry:
        entry.at_s = time.time()
        self.entries.append(entry)
        return entry

    def number(self) -> int:
        return next(self._numbers)

    def too_fast(self, provider: ProviderName, peer: str, interval_s: float, burst: int) -> float | None:
        """For how many seconds `peer` has to be left alone; None: it may be sent this one, which counts."""
        now_s = time.monotonic()
        due_s = max(self._due.get((provider, peer), 0.0), now_s)
        wait_s = due_s - (burst - 1) * interval_s - now_s
        if wait_s > 0:
            return wait_s
        self._due[provider, peer] = due_s + interval_s
        return None
