"""What the `switchboard dead` commands do: open the two servers, act, print.

Each action returns its exit code: 0, or 1 when a job was refused; the others of the same command are still handled.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from agents import registry
from ops.dead.books import DeadFilter, DeadJob, Position, place_of
from ops.dead.desk import Desk
from ops.dead.edit import Edit
from ops.dead.retry import Refusal, Retried
from ops.dead.show import Printer, progress
from ops.terminal.output import note
from ops.terminal.session import both_servers, ran, user
from shared.config import Settings
from shared.errors import CallerError, InvalidRequest
from shared.ids import is_uuid

PAGE = 200


def run(settings: Settings, tenant: str | None, action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> int:
    """The action's exit code. Raises SwitchboardError in one line."""

    async def act() -> int:
        async with both_servers(settings) as (pool, commands):
            desk = await Desk.over(pool, commands, settings, registry.load())
            desk.books.check_reach(tenant)
            return await action(Terminal(desk, tenant, Printer(json=json)))

    return ran(act)


class Terminal:
    def __init__(self, desk: Desk, tenant: str | None, printer: Printer) -> None:
        self._books, self._retrier = desk.books, desk.retrier
        self._tenant, self._printer = tenant, printer
        self._by = user()

    async def list(self, wanted: DeadFilter, limit: int) -> int:
        self._printer.jobs([dead async for dead in self._pages(wanted, limit)])
        return 0

    async def show(self, job_id: str) -> int:
        self._printer.detail(await self._books.find(self._tenant, _checked(job_id)))
        return 0

    async def retry_these(self, job_ids: Sequence[str], position: Position, rate: float, *, dry_run: bool) -> int:
        if dry_run:
            found = [(await self._books.find(self._tenant, _checked(job_id))).dead for job_id in job_ids]
            self._printer.jobs(found)
            return 0
        return await self._follow(self._each(job_ids, position, Edit()), len(job_ids), rate)

    async def retry_all(self, wanted: DeadFilter, position: Position, rate: float, *, dry_run: bool) -> int:
        total = await self._books.count(wanted)
        if dry_run:
            self._printer.jobs([dead async for dead in self._pages(wanted, total)])
            note(f"{total} jobs would be retried")
            return 0
        return await self._follow(self._matching(wanted, position), total, rate)

    async def edit(
        self, job_id: str, position: Position, *, message: str | None, agent: str | None, metadata: str | None
    ) -> int:
        edit = Edit(message=message, agent=agent, metadata=None if metadata is None else _object(metadata))
        return await self._follow(self._each([job_id], position, edit), 1, rate=1.0)

    async def discard(self, job_ids: Sequence[str]) -> int:
        code = 0
        for job_id in job_ids:
            try:
                await self._books.discard(self._tenant, _checked(job_id), self._by)
            except CallerError as error:
                note(f"{job_id}: {error}")
                code = 1
            else:
                self._printer.discarded(job_id)
        return code

    async def _pages(self, wanted: DeadFilter, limit: int) -> AsyncIterator[DeadJob]:
        after = None
        while limit > 0:
            page = await self._books.page(wanted, after, min(limit, PAGE))
            for dead in page:
                yield dead
            if len(page) < PAGE:
                return
            after, limit = place_of(page[-1]), limit - len(page)

    async def _each(self, job_ids: Sequence[str], position: Position, edit: Edit) -> AsyncIterator[Retried | Refusal]:
        for job_id in job_ids:
            try:
                yield await self._retrier.retry(
                    self._tenant, _checked(job_id), position=position, by=self._by, edit=edit
                )
            except CallerError as error:
                yield Refusal(job_id, self._tenant or "", error)

    async def _matching(self, wanted: DeadFilter, position: Position) -> AsyncIterator[Retried | Refusal]:
        after: str | None = None
        while True:
            handled = 0
            async for one in self._retrier.retry_next(wanted, after, PAGE, position=position, by=self._by):
                after, handled = one.job_id, handled + 1
                yield one
            if handled < PAGE:
                return

    async def _follow(self, work: AsyncIterator[Retried | Refusal], total: int, rate: float) -> int:
        """Print each as it is done, at most `rate` a second; a bar on stderr where there are several."""
        refused, started_s = 0, time.monotonic()
        with progress(total) as advance:
            done = 0
            async for one in work:
                done += 1
                advance()
                if isinstance(one, Refusal):
                    refused += 1
                    note(f"{one.job_id}: {_said(one)}")
                else:
                    self._printer.retried(one)
                if done < total:
                    await asyncio.sleep(max(0.0, started_s + done / rate - time.monotonic()))
        if total != 1:
            note(f"{done - refused} jobs retried, {refused} refused")
        return 1 if refused else 0


def _said(refusal: Refusal) -> str:
    if isinstance(refusal.error, InvalidRequest) and refusal.error.faults:
        return "; ".join(f"{fault['field']}: {fault['message']}" for fault in refusal.error.faults)
    return str(refusal.error)


def _checked(job_id: str) -> str:
    if not is_uuid(job_id):
        raise InvalidRequest(f"{job_id!r} is not the id of a job")
    return job_id


def _object(text: str) -> dict[str, object]:
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"--metadata is not a JSON object: {error}") from None
