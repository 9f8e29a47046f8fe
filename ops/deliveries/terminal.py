"""What `switchboard endpoints` and `switchboard deliveries` do: open Postgres, act, print.

Each action returns its exit code: 0, or 1 when something was refused; the others of the same command are still handled.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ops.deliveries.asks import DeliveriesQuery, EndpointBody, EndpointChange, RotateBody
from ops.deliveries.books import DeliveryBooks, no_such_delivery, no_such_endpoint
from ops.deliveries.gate import Gate
from ops.deliveries.records import Delivery
from ops.terminal.output import Printer, note
from ops.terminal.session import postgres, said, user
from ops.terminal.typed import checked
from shared.config import Settings
from shared.db import Pool
from shared.errors import CallerError, InvalidRequest
from shared.ids import is_uuid

PAGE = 200
_ENDPOINTS = ("id", "tenant", "url", "event_types", "format", "disabled_why", "failures", "description")
_DELIVERIES = ("id", "tenant", "event_type", "state", "why", "attempts", "sequence", "created_at", "url")


def run(settings: Settings, tenant: str | None, action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> int:
    """The action's exit code. Raises SwitchboardError in one line for what is not about the request."""

    async def act() -> int:
        async with opened(settings) as (pool, gate):
            books = await DeliveryBooks.over(pool, settings, gate)
            books.check_reach(tenant)
            return await action(Terminal(books, tenant, Printer(json=json)))

    return said(act)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Pool, Gate]]:
    gate = Gate(settings)
    try:
        async with postgres(settings) as pool:
            yield pool, gate
    finally:
        gate.close()


class Terminal:
    def __init__(self, books: DeliveryBooks, tenant: str | None, printer: Printer) -> None:
        self._books, self._tenant, self._printer = books, tenant, printer

    async def create(self, tenant: str, given: Mapping[str, Any]) -> int:
        made, new = await self._books.create(tenant, checked(EndpointBody, given), user())
        self._printer.secret(new.secret, {**made.resource(), "secret": new.secret}, f"endpoint {made.id}")
        return 0

    async def endpoints(self) -> int:
        found = await self._books.endpoints(self._tenant)
        self._printer.rows([one.resource() for one in found], _ENDPOINTS)
        return 0

    async def change(self, endpoint: str, change: Mapping[str, Any]) -> int:
        given = {name: value for name, value in change.items() if value is not None}
        if not given:
            raise InvalidRequest(
                "nothing to change: give --url, --event, --format, --description, --disable or --enable"
            )
        asked = checked(EndpointChange, given).model_dump(exclude_none=True)
        changed = await self._books.change(self._tenant, _endpoint(endpoint), asked)
        self._printer.rows([changed.resource()], _ENDPOINTS)
        return 0

    async def rotate(self, endpoint: str, overlap_s: int) -> int:
        asked = checked(RotateBody, {"overlap_s": overlap_s})
        new = await self._books.rotate(self._tenant, _endpoint(endpoint), asked.overlap_s)
        self._printer.secret(new.secret, new.resource(), f"endpoint {endpoint}")
        return 0

    async def rotate_default(self, tenant: str, overlap_s: int) -> int:
        asked = checked(RotateBody, {"overlap_s": overlap_s})
        new = await self._books.rotate_default(tenant, asked.overlap_s)
        self._printer.secret(new.secret, new.resource(), f"callback URLs of {tenant}")
        return 0

    async def remove(self, endpoint: str) -> int:
        removed = await self._books.remove(self._tenant, _endpoint(endpoint))
        self._printer.rows([removed.resource()], _ENDPOINTS)
        return 0

    async def list(self, wanted: Mapping[str, str | None], limit: int) -> int:
        found = [one async for one in self._matching(wanted, limit)]
        self._printer.rows([{**one.resource(), "why": _why(one)} for one in found], _DELIVERIES)
        return 0

    async def show(self, delivery: str) -> int:
        self._printer.one((await self._books.find(self._tenant, _delivery(delivery))).resource())
        return 0

    async def replay(self, ids: Sequence[str] | None, wanted: Mapping[str, str | None]) -> int:
        if ids is None:
            ids = [one.id async for one in self._matching(wanted, None)]
        code = 0
        for delivery in ids:
            try:
                await self._books.replay(self._tenant, _delivery(delivery))
            except CallerError as error:
                note(f"{delivery}: {error}")
                code = 1
        note(f"{len(ids)} deliveries" if code == 0 else "some were not sent again")
        return code

    async def _matching(self, wanted: Mapping[str, str | None], limit: int | None) -> AsyncIterator[Delivery]:
        """All when `limit` is None, page by page."""
        given = {name: value for name, value in wanted.items() if value is not None}
        asked = checked(DeliveriesQuery, given).model_dump(mode="json", exclude={"tenant", "limit", "cursor"})
        last, left = None, limit
        while left is None or left > 0:
            page = await self._books.page({**asked, "tenant": self._tenant}, last, min(PAGE, left or PAGE))
            for one in page:
                yield one
            if not page:
                return
            last, left = page[-1].id, None if left is None else left - len(page)


def _why(one: Delivery) -> str | None:
    """In a word: what it waits for, or failed by."""
    if one.paused is not None:
        return f"paused: {one.paused.code}"
    return None if one.error is None else one.error.code


def _endpoint(text: str) -> str:
    if not is_uuid(text):
        raise no_such_endpoint()
    return text


def _delivery(text: str) -> str:
    if not is_uuid(text):
        raise no_such_delivery()
    return text
