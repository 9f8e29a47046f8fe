"""A connection to Redis of one's own, for what must not be shared: commands that block, and pushes of the server.

Read by hiredis as the shared one is (`link.py`), which halves what waking up costs beside redis-py's reader. One
connection and no more: when it ends, whoever waits gets Unavailable, and its owner opens another.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from hiredis import pack_command
from redis.asyncio import ConnectionPool

from shared.errors import Unavailable
from shared.redis.link import Link, open_link
from shared.redis.replies import UNREACHABLE, Argument, unavailable


class Line:
    """`await line.ask(…)`: one caller at a time."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(self, *commands: tuple[Argument, ...], refusals: bool = False) -> list[Any]:
        """Their replies as hiredis reads them. Raises Unavailable, or redis-py's ResponseError for a wrong command.

        With `refusals` errors are replies among the others. A caller that is cancelled ends the connection: its answer
        would be the next one's.
        """
        if self._link.lost:
            raise Unavailable(UNREACHABLE)
        loop = asyncio.get_running_loop()
        replies = [loop.create_future() for _ in commands]
        self._link.send([pack_command(command) for command in commands], replies)  # type: ignore[arg-type]  # as in Commands
        try:
            return await asyncio.gather(*replies, return_exceptions=refusals)
        except asyncio.CancelledError:
            self._link.end(Unavailable("its caller left"))
            raise


@asynccontextmanager
async def open_line(
    pool: ConnectionPool,
    *,
    timeout_s: float,
    on_push: Callable[[], None] | None = None,
    on_end: Callable[[], None] | None = None,
) -> AsyncIterator[Line]:
    """A connection as `pool` would make it, closed at the end. `timeout_s` must exceed the longest block.

    With `on_push` it speaks RESP3: called for each message that the server sends unasked. Raises Unavailable.
    """
    resp3 = {} if on_push is None else {"protocol": 3}
    own: Any = ConnectionPool(connection_class=pool.connection_class, **{**pool.connection_kwargs, **resp3})
    try:
        link = await open_link(
            own,
            timeout_s=timeout_s,
            on_end=lambda _error: on_end() if on_end else None,
            on_room=lambda: None,
            on_push=on_push,
        )
    except Exception as error:
        raise unavailable(error) or error from error
    try:
        yield Line(link)
    finally:
        link.end(Unavailable("closed"))
