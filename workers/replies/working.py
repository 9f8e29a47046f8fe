"""Showing users that an answer is being written, while it is.

A worker says that it has begun (`Begun`, beside the turn and never in its way); one of the delivery processes shows it
(`Typist`). Nothing depends on it: it is said once, kept nowhere but in a short list in Redis, and dropped when it is
late, when the job is over, when the channel is paused, or when there is too much of it.
"""

import asyncio
import time
from typing import Any

import msgspec
import structlog
from prometheus_client import Counter

from shared import keys
from shared.channels.api import ADDRESS
from shared.db import Pool
from shared.errors import SwitchboardError, Unavailable
from shared.redis import Commands, Line, open_line
from shared.telemetry.metrics import REGISTRY, child
from shared.wire import TurnPayload
from sql import queries
from workers.replies.claimed import ChannelRow
from workers.replies.opened import Channels, Unusable
from workers.replies.provider import Answered, Provider

log = structlog.get_logger("working")

KEPT = 1_000
"""What is not shown within seconds need not be shown."""
LATE_US = 5_000_000
AT_ONCE = 32
TIMEOUT_S = 5.0
_BLOCK_S = 5
_BACK_OFF_S = 1.0
signals = Counter("switchboard_working_signals", "Signs that work has begun.", ["outcome"], registry=REGISTRY)


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON in `sb:working`."""

    tenant: str
    channel: str
    job: str
    at_us: int
    details: dict[str, Any]
    """Of the message that is being answered."""


class Begun:
    """The worker's side."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, payload: TurnPayload) -> None:
        """Of a message that came through a channel; of any other nothing. Never waits, never raises."""
        address, details = payload.callback_url or "", payload.metadata.get("channel")
        if not address.startswith(ADDRESS) or not isinstance(details, dict):
            return
        sign = Sign(
            tenant=payload.tenant,
            channel=address.removeprefix(ADDRESS),
            job=payload.job_id,
            at_us=_now_us(),
            details=details,
        )
        task = asyncio.create_task(self._tell(sign))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, sign: Sign) -> None:
        try:
            await asyncio.gather(
                self._commands.run("RPUSH", keys.WORKING, msgspec.json.encode(sign)),
                self._commands.run("LTRIM", keys.WORKING, -KEPT, -1),
            )
        except Exception as error:  # noqa: BLE001 - a Redis that is away or full is somebody else's to report
            log.debug("working.untold", job=sign.job, fault=str(error))


class Typist:
    """The delivery process's side."""

    def __init__(self, commands: Commands, pool: Pool, channels: Channels) -> None:
        self._commands, self._pool, self._channels = commands, pool, channels
        self._provider = Provider(timeout_s=TIMEOUT_S)
        self._showing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with open_line(self._commands.redis.connection_pool, timeout_s=2 * _BLOCK_S) as line:
                    while True:
                        await self._take(line)
            except Unavailable as error:
                log.warning("working.outage", fault=str(error))
            except Exception:
                log.exception("working.broke")
            await asyncio.sleep(_BACK_OFF_S)

    async def aclose(self) -> None:
        for task in self._showing:
            task.cancel()
        if self._showing:
            await asyncio.wait(self._showing)
        await self._provider.aclose()

    async def _take(self, line: Line) -> None:
        (popped,) = await line.ask(("BLPOP", keys.WORKING, _BLOCK_S))
        if popped is None:
            return
        if len(self._showing) >= AT_ONCE:
            child(signals, "too_many").inc()
            return
        task = asyncio.create_task(self._witnessed(popped[1]))
        self._showing.add(task)
        task.add_done_callback(self._showing.discard)

    async def _witnessed(self, raw: bytes) -> None:
        try:
            outcome = await self._shown(msgspec.json.decode(raw, type=Sign))
        except (SwitchboardError, Unusable, msgspec.MsgspecError, KeyError, ValueError) as error:
            log.info("working.not_shown", fault=str(error))
            outcome = "failed"
        child(signals, outcome).inc()

    async def _shown(self, sign: Sign) -> str:
        """What became of it."""
        if _now_us() - sign.at_us > LATE_US:
            return "late"
        if await self._commands.run("HGET", keys.job(sign.job), "state") != b"running":
            return "over"
        row = await self._pool.fetchrow(queries["find_channel"], sign.tenant, sign.channel)
        if row is None:
            return "no_channel"
        record = msgspec.json.decode(row["channel"], type=dict[str, Any])
        if record.get("paused") is not None:
            return "paused"
        opened = self._channels.open(sign.tenant, msgspec.convert({**record, "sealed": row["sealed"]}, ChannelRow))
        call = opened.adapter.render_working(
            sign.details, opened.settings, opened.credentials, base_url=opened.base_url
        )
        if call is None:
            return "not_offered"
        heard = await self._provider.send(call)
        return "shown" if isinstance(heard, Answered) and 200 <= heard.status < 300 else "refused"


def _now_us() -> int:
    return time.time_ns() // 1_000
