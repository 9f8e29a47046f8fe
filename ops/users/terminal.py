"""What `switchboard users` does: open the two servers, act, print."""

import sys
from collections.abc import Awaitable, Callable

from ops.terminal.output import Printer, note
from ops.terminal.session import both_servers, said, user
from ops.users.books import Erasure, User, UserBooks
from ops.users.errands import Errands, erasing
from shared import deployment
from shared.config import Settings

_USERS = ("id", "tenant", "created_at", "profile")
_ERASURE = ("id", "tenant", "kind", "state", "counts", "erased_before", "done_at")
PAGE = 200
ERASED_WITHIN_S = 3_600.0


def run(settings: Settings, action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> int:
    """The action's exit code. Raises SwitchboardError in one line for what is not about the request."""

    async def act() -> int:
        async with both_servers(settings) as (pool, commands):
            await deployment.claim(commands, pool, settings.environment)
            async with erasing(settings, commands, pool) as eraser:
                books = UserBooks(pool)
                errands = Errands(books, eraser)
                try:
                    return await action(Terminal(books, errands, Printer(json=json)))
                finally:
                    await errands.aclose()

    return said(act)


class Terminal:
    def __init__(self, books: UserBooks, errands: Errands, printer: Printer) -> None:
        self._books, self._errands, self._printer = books, errands, printer

    async def list(self, tenant: str, limit: int) -> int:
        found: list[User] = []
        after: str | None = None
        while len(found) < limit:
            page = await self._books.page(tenant, after, min(PAGE, limit - len(found)))
            found += page
            if len(page) < PAGE:
                break
            after = page[-1].id
        self._printer.rows([one.resource() for one in found], _USERS)
        return 0

    async def show(self, tenant: str, user_id: str) -> int:
        self._printer.one((await self._books.find(tenant, user_id)).resource())
        return 0

    async def export(self, tenant: str, user_id: str) -> int:
        await self._books.find(tenant, user_id)
        async for row in self._books.rows(tenant, user_id):
            sys.stdout.write(row.decode())
        return 0

    async def erase(self, tenant: str, user_id: str | None, conversation: str | None) -> int:
        """1: it is not done yet, for want of a worker that ends what runs; the console goes on with it."""
        if user_id is not None:
            done = await self._errands.erase_user(tenant, user_id, user(), within_s=ERASED_WITHIN_S)
        else:
            done = await self._errands.erase_conversation(tenant, conversation or "", user(), within_s=ERASED_WITHIN_S)
        self._printer.rows([done.resource()], _ERASURE)
        return _told(done)


def _told(erasure: Erasure) -> int:
    if erasure.done:
        if not erasure.counts:
            note("there was nothing: is the name right?")
        return 0
    note("it is not done yet: the console goes on with it, or the same command again")
    return 1
