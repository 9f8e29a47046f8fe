"""One connection to Redis with any number of commands under way: replies come back in the order of the commands.

redis-py opens it (URL, TLS, AUTH, SELECT, sentinels), then this protocol takes the transport over: replies are read by
hiredis and each one resolves the future that stands first. A link that ends fails every future it still owes, once, and
never sends anything twice.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias

from hiredis import HiredisError, PushNotification, Reader
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import Unavailable
from shared.redis.replies import UNREACHABLE, NotPrimary, refusal

Reply: TypeAlias = "asyncio.Future[Any]"
LOOKS = 5
"""How often the first command may be found unanswered, at equal intervals of the time-out."""
WRITE_BUFFER_BYTES = 1 << 20
"""Beyond it the server reads too slowly: what follows waits in `Commands`, where it is bounded."""
_MORE = object()


class Link(asyncio.Protocol):
    """`on_end(error)` is called once, when nothing can be sent on it any more; `on_room()` when something can again.

    `on_push()` is called for each message that the server sends unasked, which only RESP3 has.
    """

    def __init__(
        self,
        connection: Any,
        *,
        timeout_s: float,
        on_end: Callable[[Exception], None],
        on_room: Callable[[], None],
        on_push: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection  # its writer must live as long as the transport, which it would close
        self._transport: asyncio.Transport = connection._writer.transport
        self._on_end, self._on_room, self._on_push = on_end, on_room, on_push
        self._owed: deque[Reply] = deque()
        self._reader = Reader(replyError=refusal, notEnoughData=_MORE)
        self._full = self._over = False
        self._looks = 0
        self._first_seen: Reply | None = None
        self._look_every_s = timeout_s / LOOKS
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._transport.set_protocol(self)
        self._timer = asyncio.get_running_loop().call_later(self._look_every_s, self._look)

    @property
    def owed(self) -> Collection[Reply]:
        """Commands without a reply so far."""
        return self._owed

    @property
    def full(self) -> bool:
        """Whether the server is too far behind to be sent more."""
        return self._full

    @property
    def lost(self) -> bool:
        """Whether the connection is gone, perhaps only known to its transport so far."""
        return self._transport.is_closing()

    def send(self, packed: Iterable[bytes], replies: Iterable[Reply]) -> None:
        """One write. Each command resolves its future."""
        self._owed.extend(replies)
        self._transport.write(b"".join(packed))

    def end(self, error: Exception) -> None:
        """Now: nobody waits any longer, and what the server still answers is not read."""
        if self._over:
            return
        self._over = True
        self._timer.cancel()
        self._transport.abort()  # close() would wait for a server that does not read
        self._connection._close()
        for reply in self._owed:
            if not reply.done():
                reply.set_exception(Unavailable(UNREACHABLE))
        self._owed.clear()
        self._on_end(error)

    def _look(self) -> None:
        """The time-out, by looks and not by the clock: after a stop of our own process we read before we judge."""
        first = self._owed[0] if self._owed else None
        self._looks = self._looks + 1 if first and first is self._first_seen else 0
        self._first_seen = first
        if self._looks == LOOKS:
            self.end(TimeoutError("Redis does not answer"))
        else:
            self._timer = asyncio.get_running_loop().call_later(self._look_every_s, self._look)

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        reader, owed = self._reader, self._owed
        reader.feed(data)
        try:
            while (answer := reader.gets()) is not _MORE:
                if isinstance(answer, PushNotification):
                    if self._on_push is not None:
                        self._on_push()
                    continue
                reply = owed.popleft()
                if reply.done():  # its caller went away
                    continue
                if isinstance(answer, Exception):
                    reply.set_exception(answer)
                else:
                    reply.set_result(answer)
                if type(answer) is NotPrimary:
                    self.end(answer)
                    return
        except (HiredisError, IndexError) as error:  # not RESP, or an answer to nothing: who gets what is unknown
            self.end(error)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc or RedisConnectionError("Redis closed the connection"))


async def open_link(
    pool: ConnectionPool,
    *,
    timeout_s: float,
    on_end: Callable[[Exception], None],
    on_room: Callable[[], None],
    on_push: Callable[[], None] | None = None,
) -> Link:
    """A link as `pool` would connect, and beside it. Raises redis-py's errors, OSError or TimeoutError."""
    redis_py: Any = pool  # which does not type these calls
    connection = redis_py.make_connection()
    try:
        async with asyncio.timeout(timeout_s):
            await connection.connect()
        return Link(connection, timeout_s=timeout_s, on_end=on_end, on_room=on_room, on_push=on_push)
    except BaseException:
        connection._close()
        raise
