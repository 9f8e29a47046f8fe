"""From a host's name to the addresses that may be called: asked once per attempt, and judged whole.

Every address must be public: a name that leads to a public and a private one is an attack or a mistake. Whoever calls
connects to one of the addresses returned, and never asks again (DNS rebinding).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import ip_address

from shared.addresses import Address, is_public

Lookup = Callable[[str, int], Awaitable[Sequence[Address]]]
"""All addresses of a host. Raises OSError."""


class Unresolved(Exception):
    """The name leads nowhere."""


class Refused(Exception):
    """It leads to where we do not call."""


class Resolver:
    """`lookup` is the system's, in threads of its own: a name server that hangs must not hold up other names.

    A thread that asks one cannot be stopped. Whoever gave up waiting for it awaits `rest` before its slot is free: with
    as many threads as slots there is one for everybody who has a slot.
    """

    def __init__(self, *, allow_private: bool, threads: int, lookup: Lookup | None = None) -> None:
        self._allow_private = allow_private
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")
        self._lookup = lookup or self._ask_system
        self._left: dict[asyncio.Task[object] | None, Future[list[Address]]] = {}
        """Lookups that nobody waits for any more, by who did."""

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """One or more. Raises Unresolved or Refused."""
        try:
            found = await self._lookup(host, port)
        except (OSError, UnicodeError) as error:  # a label that is empty or too long fails in the codec
            raise Unresolved(f"{host} cannot be resolved: {error}") from error
        if not found:
            raise Unresolved(f"{host} has no address")
        if not self._allow_private and not all(is_public(address) for address in found):
            raise Refused(f"{host} leads to a private address")
        return found

    async def rest(self) -> None:
        """Until the thread of a lookup that this task has given up is free again."""
        if lookup := self._left.pop(asyncio.current_task(), None):
            await asyncio.wait([asyncio.wrap_future(lookup)])

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask_system(self, host: str, port: int) -> Sequence[Address]:
        def ask() -> list[Address]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            texts = dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found)
            return [ip_address(text) for text in texts]

        lookup = self._threads.submit(ask)
        try:
            return await asyncio.wrap_future(lookup)
        except asyncio.CancelledError:
            if lookup.running():
                self._left[asyncio.current_task()] = lookup
            raise
