"""The one way to Redis: commands issued in the same tick of the loop travel together in one round trip.

`Commands` is what scripts and readers use. A connection that fails, times out or answers LOADING raises Unavailable:
the caller backs off or answers 503, nobody sees redis-py's classes. Connections come from redis-py's pool.
"""

import asyncio
from typing import Any, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - redis-py's own, which is not the builtin
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis-py's own, which is not the builtin
)

from shared.errors import ConfigError, Unavailable

Argument: TypeAlias = str | bytes | int | float
COMMAND_TIMEOUT_S = 5.0
MINIMUM_VERSION = (7, 0)
"""Scripts use `#!lua` flags, HRANDFIELD and LPOS."""

_TRANSIENT = (ConnectionError, TimeoutError, OSError, BusyLoadingError, ReadOnlyError)


def connect(url: str, *, max_connections: int = 16, timeout_s: float | None = COMMAND_TIMEOUT_S) -> Redis:
    """A client on its own pool. `timeout_s` must exceed the longest blocking command issued through it."""
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=COMMAND_TIMEOUT_S,
        socket_timeout=timeout_s,
        socket_connect_timeout=2.0,
        socket_keepalive=not url.startswith("unix"),
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),  # redis-py would resend a script whose first answer was lost
    )
    return Redis(connection_pool=pool)


def unavailable(error: BaseException) -> Unavailable | None:
    """What a redis-py failure means to a caller; None when it is not a matter of availability."""
    closed = isinstance(error, RuntimeError) and "closed" in str(error)  # uvloop, of a socket that closes under it
    if closed or isinstance(error, _TRANSIENT):
        return Unavailable("Redis cannot be reached")
    refused = isinstance(error, ResponseError) and str(error).startswith(("READONLY", "MISCONF", "NOREPLICAS"))
    if refused or isinstance(error, OutOfMemoryError):  # redis-py cuts the code off the messages it has a class for
        return Unavailable("Redis does not take writes", retry_after_s=5)
    return None


class Commands:
    """Runs commands on a client; those awaiting at the same time share one pipelined round trip."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._pending: list[tuple[tuple[Argument, ...], asyncio.Future[Any]]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    async def run(self, *command: Argument) -> Any:
        """The reply as redis-py parses it (bytes, int, list …).

        Raises Unavailable, or redis-py's ResponseError for a wrong command.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append((command, reply))
        if len(self._pending) == 1:
            flush = asyncio.ensure_future(self._flush())
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)
        return await reply

    async def _flush(self) -> None:
        batch, self._pending = self._pending, []
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                for command, _ in batch:
                    pipe.execute_command(*command)
                replies = await pipe.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, everyone who waits must learn of it
            replies = [error] * len(batch)
        except asyncio.CancelledError:
            for _, reply in batch:
                reply.cancel()
            raise
        if any(isinstance(value, ReadOnlyError) for value in replies):
            await self.redis.connection_pool.disconnect(inuse_connections=False)  # the primary may be elsewhere now
        for (_, reply), value in zip(batch, replies, strict=True):
            if reply.done():  # its caller went away
                continue
            if isinstance(value, BaseException):
                reply.set_exception(unavailable(value) or value)
            else:
                reply.set_result(value)

    async def aclose(self) -> None:
        """Waits for commands under way, then closes the pool."""
        await asyncio.gather(*self._flushes, return_exceptions=True)
        await self.redis.aclose(close_connection_pool=True)


async def check_server(redis: Redis, *, production: bool) -> list[str]:
    """What is wrong with the server for a queue: one sentence each, empty when all is well.

    Raises ConfigError for what can never work, and in production for anything that can lose an accepted job.
    """
    try:
        info: dict[str, Any] = await redis.info()
    except (RedisError, OSError) as error:
        raise ConfigError(f"Redis cannot be reached ({error})") from None
    version = tuple(int(part) for part in str(info.get("redis_version", "0.0")).split(".")[:2])
    if version < MINIMUM_VERSION:
        raise ConfigError(f"Redis {info.get('redis_version')} is too old: 7.0 or newer, or Valkey, is needed")
    if info.get("redis_mode") == "cluster":
        raise ConfigError("Redis Cluster is not supported: scripts build keys from job ids; use one primary")
    faults = []
    if info.get("maxmemory_policy") != "noeviction":
        faults.append(
            f"maxmemory-policy is {info.get('maxmemory_policy')}: set it to noeviction, an evicted job is lost"
        )
    if not info.get("aof_enabled"):
        faults.append("appendonly is off: a Redis restart loses accepted jobs; set appendonly yes")
    if production and faults:
        raise ConfigError("; ".join(faults))
    return faults
