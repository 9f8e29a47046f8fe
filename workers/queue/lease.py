"""The worker's sign of life: one lease per incarnation, renewed from a thread with a connection of its own.

A blocked event loop must not lose the lease (its jobs would run twice), a wedged one must (its jobs would never run):
the thread goes on renewing for `wedged_s` after the loop last answered, then stops. A lost lease is never revived; the
worker stops what it runs and joins again under a new name.
"""

import logging
import secrets
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any

import redis as sync_redis
from redis.asyncio import ConnectionPool, UnixDomainSocketConnection
from redis.exceptions import NoScriptError, RedisError

from shared.scripts import Script

logger = logging.getLogger("switchboard.lease")

_beat = Script("beat")
BEATS_PER_LEASE = 4
_RETRY_S = 0.05


def new_incarnation() -> str:
    """Name of one life of one worker process; never used again."""
    return secrets.token_hex(8)


class LeaseThread:
    """Renews `worker`'s lease until stopped. Callbacks run in the event loop."""

    def __init__(
        self,
        pool: ConnectionPool,
        queue: str,
        worker: str,
        *,
        lease_s: float,
        wedged_s: float,
        loop: AbstractEventLoop,
        on_cancel: Callable[[list[str]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        # A silent connection must be found out with enough of the lease left to renew it on another.
        self._redis: Any = _sync_client(pool, timeout_s=lease_s / BEATS_PER_LEASE)
        self._queue, self._worker, self._lease_s, self._wedged_s = queue, worker, lease_s, wedged_s
        self._loop, self._on_cancel, self._on_lost = loop, on_cancel, on_lost
        self._answered_at = self.renewed_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops renewing; does not wait for a beat under way longer than it takes."""
        self._stop.set()

    def join(self) -> None:
        """Waits for the thread. Blocks; call it off the loop."""
        self._thread.join(timeout=self._lease_s)

    def _run(self) -> None:
        try:
            self._renew()
        finally:
            self._redis.close()

    def _renew(self) -> None:
        pause_s = self._lease_s / BEATS_PER_LEASE
        wait_s = pause_s
        while not self._stop.wait(wait_s):
            wait_s = pause_s
            if not self._call_loop(self._answered):
                return
            if time.monotonic() - self._answered_at > self._wedged_s:
                logger.error("event loop has not answered for %.0f s: giving up the lease", self._wedged_s)
                self._call_loop(self._on_lost, self._worker)  # should it ever come back
                return
            try:
                alive, *cancel = self._beat()
            except (RedisError, OSError) as error:
                logger.warning("lease not renewed: %s", error)  # the lease itself says how long this may go on
                self._redis.connection_pool.disconnect()
                wait_s = _RETRY_S
                continue
            self.renewed_at = time.monotonic()
            if not alive:
                self._call_loop(self._on_lost, self._worker)
                return
            if cancel:
                self._call_loop(self._on_cancel, [job_id.decode() for job_id in cancel])

    def _beat(self) -> list[Any]:
        command = (1, self._queue, self._worker, int(self._lease_s * 1000), "beat")
        try:
            reply: list[Any] = self._redis.execute_command("EVALSHA", _beat.sha, *command)
        except NoScriptError:
            reply = self._redis.execute_command("EVAL", _beat.source, *command)
        return reply

    def _answered(self) -> None:
        self._answered_at = time.monotonic()

    def _call_loop(self, callback: Callable[..., None], *args: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: the worker is gone
            return False
        return True


def _sync_client(pool: ConnectionPool, *, timeout_s: float) -> sync_redis.Redis:
    """A blocking client to the server of an asyncio pool."""
    given = pool.connection_kwargs
    kwargs: dict[str, Any] = {name: given[name] for name in ("db", "username", "password") if name in given}
    if issubclass(pool.connection_class, UnixDomainSocketConnection):
        kwargs["unix_socket_path"] = given["path"]
    else:
        kwargs |= {"host": given.get("host", "localhost"), "port": given.get("port", 6379)}
        tls = {name: value for name, value in given.items() if name.startswith("ssl_")}
        if tls or "ssl" in pool.connection_class.__name__.lower():
            kwargs |= {"ssl": True, **tls}
    return sync_redis.Redis(**kwargs, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, socket_keepalive=True)
