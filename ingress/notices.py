"""Waiting for news of a job: all waiters of this process share one pub/sub connection.

`watch` returns when Redis has confirmed the subscription, so that what a waiter reads afterwards and what it is told
later leave no gap. After a lost connection every waiter is woken to read again, as soon as its subscription stands
anew. A waiter costs one small object; nothing is buffered for it: a notice says "look", never what happened.

redis-py's PubSub is not used: its subscribe() does not wait for the confirmation and its reconnection tells nobody.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from ingress.tasks import stop
from shared import keys
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

CONFIRM_TIMEOUT_S = 3.0
HEARTBEAT_S = 10.0
"""Silence after which the connection is asked whether it is alive; after as much again it is given up."""
BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
MAX_BATCH = 500
"""Channels of one command, so that thousands of waiters do not become one huge write."""


class Watch:
    """One waiter of one job."""

    def __init__(self, *, ends_only: bool) -> None:
        self.ends_only = ends_only
        self._news = asyncio.Event()

    def wake(self) -> None:
        self._news.set()

    async def wait(self, timeout_s: float) -> bool:
        """True when there may be news since the last call, False when the time is over."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True


@dataclass(eq=False)
class _Channel:
    name: str
    watches: set[Watch] = field(default_factory=set)
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)

    def confirm(self) -> None:
        if self.confirmed.is_set():  # subscribed anew: what was published in between is lost
            for watch in self.watches:
                watch.wake()
        self.confirmed.set()


class Notices:
    """The shared subscription. `run` serves it until cancelled."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._channels: dict[str, _Channel] = {}
        self._connected = False
        self._outbox: deque[tuple[str, _Channel]] = deque()
        self._written = asyncio.Event()
        self._unconfirmed: deque[_Channel | None] = deque()
        """Redis confirms in the order of the commands: one entry per name sent, None for what was left."""

    @asynccontextmanager
    async def watch(self, job_id: str, *, ends_only: bool = False) -> AsyncIterator[Watch]:
        """A waiter whose subscription stands. Raises Unavailable when it cannot be had in time."""
        name, watch = keys.notify_channel(job_id), Watch(ends_only=ends_only)
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(name)
            self._send("SUBSCRIBE", channel)
        channel.watches.add(watch)
        try:
            await _confirmation(channel)
            yield watch
        finally:  # no await here: it also runs when the request is cancelled
            channel.watches.discard(watch)
            if not channel.watches:
                del self._channels[name]
                self._send("UNSUBSCRIBE", channel)

    @property
    def watching(self) -> int:
        """Jobs with at least one waiter."""
        return len(self._channels)

    async def run(self) -> None:
        """Keep the connection, and come back after every failure."""
        failures = 0
        while True:
            connection: Any = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
            try:
                await connection.connect()
                failures = 0
                await self._serve(connection)
            except (RedisError, OSError) as error:
                log.warning("notices_disconnected", error=repr(error), jobs=len(self._channels))
            finally:
                self._connected = False
                await connection.disconnect(nowait=True)
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1

    async def _serve(self, connection: Any) -> None:
        """`connection` is redis-py's AbstractConnection, outside its pool."""
        self._outbox.clear()
        self._unconfirmed.clear()
        self._connected = True
        for channel in self._channels.values():
            self._send("SUBSCRIBE", channel)
        # No TaskGroup: in Python 3.11 one that fails may leave its parent marked as cancelled.
        tasks = [asyncio.create_task(self._write(connection)), asyncio.create_task(self._read(connection))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await stop(*tasks)

    def _send(self, verb: str, channel: _Channel) -> None:
        if self._connected:  # else the next connection starts from what is wanted then
            self._outbox.append((verb, channel))
            self._written.set()

    async def _write(self, connection: Any) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            while self._outbox:
                batch = [self._outbox.popleft() for _ in range(min(len(self._outbox), MAX_BATCH))]
                for verb, entries in groupby(batch, key=lambda entry: entry[0]):
                    channels = [channel for _, channel in entries]
                    subscribed = verb == "SUBSCRIBE"
                    self._unconfirmed.extend(channel if subscribed else None for channel in channels)
                    await connection.send_command(verb, *(channel.name for channel in channels))

    async def _read(self, connection: Any) -> None:
        asked = False
        while True:
            reply = await connection.read_response(timeout=HEARTBEAT_S, disconnect_on_error=False, push_request=True)
            if reply is not None:
                asked = False
                self._take(reply)
            elif asked:
                raise RedisConnectionError("the server is silent")
            else:
                asked = True
                await connection.send_command("PING")

    def _take(self, reply: Any) -> None:
        match reply:
            case [b"message", bytes(name), bytes(notice)]:
                if channel := self._channels.get(name.decode()):
                    for watch in channel.watches:
                        if notice == b"t" or not watch.ends_only:
                            watch.wake()
            case [b"subscribe" | b"unsubscribe", *_]:
                if channel := self._unconfirmed.popleft():
                    channel.confirm()


async def _confirmation(channel: _Channel) -> None:
    try:
        async with asyncio.timeout(CONFIRM_TIMEOUT_S):
            await channel.confirmed.wait()
    except TimeoutError:
        raise Unavailable("Redis cannot be reached") from None
