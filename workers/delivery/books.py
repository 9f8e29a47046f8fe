"""The table `deliveries` as the delivery process uses it, through the role that sees every tenant.

Every statement may be repeated after a lost answer: what was claimed without our hearing of it lapses with its lease.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from shared.db import Pool, jsonb
from sql import queries
from workers.delivery.outcome import MOST_FAILURES, Outcome, recorded
from workers.replies.claimed import ReplyState
from workers.replies.outcome import ReplyEnd

PATIENCE_S = 300
"""How long the head of a lane may fail before those behind it pass."""
TRIPS = 5
"""Failures in a row that open a receiver's breaker; from then on one request at a time tries whether it is back."""
PAUSE_S = 5
"""First pause of an open breaker; doubles with each further failure, up to five minutes."""
LEASE_BEYOND_TIMEOUT_S = 30
"""Also for how long a status is waited for that echoes a message whose process vanished (workers.replies)."""
_DAY_S = 86_400

Format = Literal["switchboard", "openai"]
"""Of what an endpoint is sent: our events, or those of OpenAI's webhooks."""


def lease_s(timeout_s: float) -> int:
    """For how long a row is ours, of which one request may last `timeout_s`."""
    return round(timeout_s) + LEASE_BEYOND_TIMEOUT_S


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is ours to send, as `claim_deliveries` gives it."""

    id: str
    tenant: str
    kind: Literal["webhook", "slack", "email", "channel"]
    url: str
    """An address to post to; for e-mail the addressee; of a reply `channel://` and the channel's id."""
    endpoint: str | None
    closed: bool
    """Its endpoint was disabled or removed meanwhile."""
    format: Format
    event_type: str
    sequence: int
    body: dict[str, Any]
    """Of a job's event: the job's record. Of an alert: `alert_events`."""
    attempt: int
    failures: int
    """Before this attempt."""
    created_us: int
    secrets: list[int]
    """Serials of those that sign, the newest first."""
    reply: ReplyState | None = None
    """Of a reply through a messenger."""


class DeliveryBooks:
    def __init__(self, pool: Pool, *, per_receiver: int, per_channel: int, timeout_s: float, give_up_days: int) -> None:
        self._pool, self._per_receiver, self._per_channel = pool, per_receiver, per_channel
        self._lease_s = lease_s(timeout_s)
        self._give_up_s = give_up_days * _DAY_S

    async def tidy(self) -> int:
        """Take up what vanished processes were sending, and open lanes that have waited long enough. How many."""
        recovered = int(await self._pool.fetchval(queries["recover_deliveries"], MOST_FAILURES))
        await self._pool.fetchval(queries["park_deliveries"], PATIENCE_S)
        return recovered

    async def look_everywhere(self) -> int:
        """Have receivers looked at that are due though nothing says so: there should be none. How many were."""
        return int(await self._pool.fetchval(queries["look_everywhere"]))

    async def claim(self, slots: int, busy: Mapping[str, int]) -> list[Claimed]:
        """At most `slots`, those that are free. `busy`: what each tenant has under way in this process already."""
        args = (slots, self._per_receiver, self._lease_s, TRIPS, self._per_channel, jsonb(dict(busy)))
        rows = await self._pool.fetch(queries["claim_deliveries"], *args)
        return [msgspec.json.decode(row["delivery"], type=Claimed) for row in rows]

    async def record(self, one: Claimed, outcome: Outcome | ReplyEnd, latency_s: float) -> bool:
        """False when the row is not ours any more: our lease had lapsed."""
        if isinstance(outcome, ReplyEnd):
            said = jsonb({**msgspec.to_builtins(outcome), "latency_ms": round(latency_s * 1_000, 3)})
            args: tuple[object, ...] = (one.tenant, one.id, one.attempt, said, TRIPS, PAUSE_S)
            return bool(await self._pool.fetchval(queries["end_reply_attempt"], *args))
        said = jsonb(recorded(outcome, failures=one.failures, latency_s=latency_s))
        args = (one.tenant, one.id, one.attempt, said, TRIPS, PAUSE_S, self._give_up_s)
        return bool(await self._pool.fetchval(queries["end_delivery_attempt"], *args))
