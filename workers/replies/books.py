"""The parts of replies in Postgres, through the role that sees every tenant.

What was sent must not be sent again for want of a note: notes of what became of a request wait for Postgres. Whoever
dies while waiting leaves a part that is `sending`: in doubt, and taken up when the lease has lapsed.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from shared.channels.api import Pace
from shared.db import Pool, jsonb
from shared.errors import Unavailable
from sql import queries
from workers.replies.claimed import Form

PATIENCE_US = 1_000_000
"""A pace that makes a message wait for less is waited for in place."""
_OUTAGE_PAUSE_S = 0.5


Ended = Literal["sent", "waiting", "unknown"]
"""A part after its request; `waiting`: it was refused."""


class Leave(msgspec.Struct, frozen=True):
    """The answer of `begin_part`."""

    outcome: Literal["go", "sent", "wait", "held", "lost"]
    wait_us: int = 0


class PartBooks:
    def __init__(self, pool: Pool, *, lease_s: int) -> None:
        self._pool, self._lease_s = pool, lease_s

    async def plan(
        self, tenant: str, delivery: str, attempt: int, first: int, form: Form, texts: Sequence[str]
    ) -> bool:
        """Whether the delivery is still ours. Raises Unavailable."""
        args = (tenant, delivery, attempt, first, form, list(texts))
        return bool(await self._pool.fetchval(queries["plan_parts"], *args))

    async def begin(
        self, tenant: str, delivery: str, attempt: int, part: int, *, channel: str, hold: bool, paces: Sequence[Pace]
    ) -> Leave:
        """Asks to send a part; after `go` it is `sending`. Raises Unavailable: then it may be."""
        wanted = [
            {"peer": pace.peer, "interval_us": round(pace.interval_s * 1_000_000), "burst": pace.burst}
            for pace in paces
        ]
        args = (tenant, delivery, attempt, part, channel, hold, jsonb(wanted), PATIENCE_US, self._lease_s)
        return msgspec.json.decode(await self._pool.fetchval(queries["begin_part"], *args), type=Leave)

    async def end(
        self,
        tenant: str,
        delivery: str,
        attempt: int,
        part: int,
        state: Ended,
        message_id: str | None = None,
    ) -> None:
        """Waits for Postgres, for as long as our lease lasts; then raises Unavailable."""
        deadline_s = time.monotonic() + self._lease_s
        while True:
            try:
                await self._pool.fetchval(queries["end_part"], tenant, delivery, attempt, part, state, message_id)
            except Unavailable:
                if time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(_OUTAGE_PAUSE_S)
            else:
                return
