"""What `switchboard alerts` does: open Postgres, act, print."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ops.alerts.asks import AlertBody
from ops.alerts.books import AlertBooks
from ops.deliveries.terminal import opened
from ops.terminal.output import Printer, note
from ops.terminal.session import said, user
from ops.terminal.typed import checked
from shared.config import Settings

_RULES = ("id", "tenant", "metric", "thresholds", "scopes", "least", "told", "updated_by")
_EVENTS = ("crossed_at", "tenant", "alert", "metric", "scope", "period", "threshold", "value", "limit", "over_at")


def run(settings: Settings, tenant: str | None, action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> int:
    """The action's exit code. Raises SwitchboardError in one line for what is not about the request."""

    async def act() -> int:
        async with opened(settings) as (pool, gate):
            books = await AlertBooks.over(pool, settings, gate)
            books.check_reach(tenant)
            return await action(Terminal(books, tenant, Printer(json=json)))

    return said(act)


class Terminal:
    def __init__(self, books: AlertBooks, tenant: str | None, printer: Printer) -> None:
        self._books, self._tenant, self._printer = books, tenant, printer

    async def list(self) -> int:
        self._print(*[rule.resource() for rule in await self._books.rules(self._tenant)])
        return 0

    async def set(self, name: str, given: Mapping[str, Any]) -> int:
        rule, _ = await self._books.put(self._tenant, name, checked(AlertBody, given, whole="alert"), user())
        self._print(rule.resource())
        return 0

    async def remove(self, name: str) -> int:
        self._print((await self._books.remove(self._tenant, name)).resource())
        return 0

    async def test(self, name: str) -> int:
        event = await self._books.test(self._tenant, name, user())
        note(f"queued as {event}: `switchboard deliveries list` says what became of it")
        return 0

    async def history(self, limit: int) -> int:
        found = await self._books.history(self._tenant, None, limit)
        self._printer.rows([event.resource() for event in found], _EVENTS)
        return 0

    def _print(self, *rules: dict[str, Any]) -> None:
        shown = [{**rule, "told": [f"{each['kind']}:{each['to']}" for each in rule["targets"]]} for rule in rules]
        self._printer.rows(shown, _RULES)
