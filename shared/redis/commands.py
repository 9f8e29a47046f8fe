"""Commands issued in the same tick of the loop are one write; those of later ticks do not wait for their replies.

Everybody in a process shares this one connection, so nothing that blocks (BLPOP, SUBSCRIBE) may be sent on it. It opens
when it is first needed and again after every loss. A command that was sent when its connection ended fails with
Unavailable and may or may not have run: it is never sent a second time, that is for its caller to decide.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.redis.client import COMMAND_TIMEOUT_S
from shared.redis.link import Link, Reply, open_link
from shared.redis.replies import UNREACHABLE, Argument, unavailable

MAX_UNSENT_BYTES = 64 << 20
"""Waiting for a connection, or for a server that does not read."""


class Commands:
    """Runs commands on a connection of its own, opened as `redis`'s pool would.

    redis-py's pool costs the ingress 3 × as much CPU per command as this does (docs/decisions).
    """

    def __init__(self, redis: Redis, *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        self.redis = redis
        """For what this is not made for: INFO, pub/sub, blocking pops. Closed with us."""
        self.round_trips = 0
        """Writes so far, whatever each carried."""
        self._timeout_s = timeout_s
        self._parsers: dict[Any, Callable[[Any], Any]] = dict(redis.response_callbacks)
        self._packed: list[bytes] = []
        self._replies: list[Reply] = []
        self._unsent_bytes = 0
        self._link: Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closed = False

    async def run(self, *command: Argument) -> Any:
        """The reply as redis-py parses it (bytes, int, list …).

        Raises Unavailable, or redis-py's ResponseError for a wrong command.
        """
        answer = await self.start(*command)
        parse = self._parsers.get(command[0])
        return answer if parse is None else parse(answer)

    def start(self, *command: Argument) -> Reply:
        """The same without a coroutine: the reply comes as hiredis reads it. Raises Unavailable when it is not sent."""
        packed: bytes = pack_command(command)  # type: ignore[arg-type]  # hiredis declares a tuple of one
        if self._closed or self._unsent_bytes > MAX_UNSENT_BYTES:
            raise Unavailable(UNREACHABLE)
        loop = asyncio.get_running_loop()
        if not self._packed:
            loop.call_soon(self._flush)
        reply = loop.create_future()
        self._packed.append(packed)
        self._replies.append(reply)
        self._unsent_bytes += len(packed)
        return reply

    async def aclose(self) -> None:
        """Waits for commands under way, then closes the connection and the pool. Later commands are refused."""
        self._closed = True
        if under_way := [*self._replies, *(self._link.owed if self._link else ())]:
            await asyncio.wait(under_way, timeout=2 * self._timeout_s)  # to connect, and to be answered
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        self._fail_unsent(TimeoutError("closed"))
        if self._link is not None:
            self._link.end(Unavailable("closed"))
        await self.redis.aclose(close_connection_pool=True)

    def _flush(self) -> None:
        if not self._packed:
            return
        if self._link is None or self._link.lost:
            self._link = None
            if self._opening is None:
                self._opening = asyncio.ensure_future(self._open())
        elif not self._link.full:
            packed, replies = self._packed, self._replies
            self._packed, self._replies, self._unsent_bytes = [], [], 0
            self.round_trips += 1
            self._link.send(packed, replies)

    async def _open(self) -> None:
        pool = self.redis.connection_pool
        try:
            self._link = await open_link(pool, timeout_s=self._timeout_s, on_end=self._ended, on_room=self._flush)
        except Exception as error:  # noqa: BLE001 - whatever it is, everyone who waits must learn of it
            self._fail_unsent(error)
        finally:
            self._opening = None
        self._flush()

    def _ended(self, error: Exception) -> None:
        """What was not sent yet goes over the next connection, unless it has waited for this one long enough."""
        if isinstance(error, TimeoutError):
            self._fail_unsent(error)
        self._flush()

    def _fail_unsent(self, error: Exception) -> None:
        replies, self._packed, self._replies, self._unsent_bytes = self._replies, [], [], 0
        for reply in replies:
            if not reply.done():
                reply.set_exception(unavailable(error) or error)
