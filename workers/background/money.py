"""Model calls of a task: fenced, reserved, booked and settled like a turn's, under the task's own id.

A turn's fence is its claim in the queue; a task waits in no queue, so its claim is put where `reserve` and `settle`
look. What an earlier claim left open is booked and settled first, as a turn's next attempt does it.
"""

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence

from agents.api import Agent, Completion, Prompt
from shared import keys
from shared.db import jsonb
from shared.errors import LeaseLost
from shared.redis import Commands
from shared.wire import TurnPayload
from workers.background.tasks import Material, Task
from workers.ledger.book import Amount, LedgerRow, read_row
from workers.ledger.purse import Settlement
from workers.queue.scripts import Claimed
from workers.turn.calling import Calling, Providers
from workers.turn.spending import Money, Spending
from workers.turn.store import TurnStore
from workers.turn.work import Work

WORKER = "tasks"
_HELD = f"{keys.BACKGROUND}:held:{WORKER}"
_LEASES = f"{keys.BACKGROUND}:leases"


class Clerk(Agent):
    """Asks in the place of an agent: its `models` are the setting's."""

    id, label, system_prompt = "memory", "Memory", ""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = tuple(models)  # type: ignore[misc]  # like a tenant's copy of an agent


class Till:
    """A task's way to money."""

    def __init__(self, commands: Commands, money: Money, store: TurnStore, providers: Providers, clerk: Clerk) -> None:
        self._commands, self._store, self._providers, self._clerk = commands, store, providers, clerk
        self._money = money

    @contextlib.asynccontextmanager
    async def opened(self, task: Task, material: Material, lease_s: float) -> AsyncIterator["Account"]:
        """Raises Unavailable. What is left at the end of the block without being booked waits for the next claim."""
        await self._commands.run("HSET", _HELD, task.task_id, task.claim)
        seconds, _ = await self._commands.run("TIME")
        await self._commands.run("ZADD", _LEASES, "GT", int((seconds + 10 * lease_s) * 1000), WORKER)
        found = await self._commands.run("HGETALL", keys.calls(task.task_id))
        open_calls = {name.decode(): row for name, row in found.items() if not name.endswith(keys.HOLD.encode())}
        account = Account(self, self._work(task, material, open_calls))
        await account.take_over()
        yield account
        await self._commands.run("HDEL", _HELD, task.task_id)

    def _work(self, task: Task, material: Material, open_calls: dict[str, bytes]) -> Work:
        job = Claimed(
            id=task.task_id,
            score="0",
            attempt=task.attempt,
            payload=None,
            created_us=None,
            run=1,
            started_us=task.claim,
            cancelled=False,
            user_id=task.user_id,
            errors=None,
            open_calls=open_calls,
            holds={},
            claim=str(task.claim),
            worker=WORKER,
        )
        payload = TurnPayload(
            job_id=task.task_id,
            tenant=task.tenant,
            agent=material.agent or self._clerk.id,
            conversation_id=task.conversation_id,
            message="",
        )
        return Work(job, payload, self._clerk, task.user_id, settings=material.tenant_settings)

    async def post(self, work: Work, rows: Sequence[LedgerRow], calls: Collection[str]) -> None:
        """Books rows, and lets Redis forget the calls: they cost what the ledger says, whoever told it first."""
        booked = await self._store.book(work.payload.tenant, list(rows), _never_wait) if rows else {}
        settlements = [Settlement(call_id, booked.get(call_id, Amount(0, 0))) for call_id in calls]
        if settlements and not await self._money.till.settle(work.job, settlements):
            raise LeaseLost("the task was claimed by somebody else")

    def told(self, work: Work) -> str:
        return jsonb([self._store.fenced(work.payload.tenant, row, None) for row in work.postable()])

    def spending(self, work: Work) -> Spending:
        return Spending(work, self._money, self._store, _never_wait)

    def calling(self, work: Work, spending: Spending, kind: str) -> Calling:
        return Calling(work, self._providers, self._money.prices, spending, _say_nothing, kind=kind, patient=False)


class Account:
    """The calls of one claim of one task."""

    def __init__(self, till: Till, work: Work) -> None:
        self._till, self._work = till, work
        self._spending = till.spending(work)

    async def take_over(self) -> None:
        """Calls that earlier claims left: nobody saw an answer, so what is booked is their input."""
        calls = self._work.job.open_calls
        sent = [row for raw in calls.values() if (row := read_row(raw)).status != "unsent"]
        await self._till.post(self._work, sent, calls)

    async def ask(self, prompt: Prompt, kind: str) -> Completion:
        """One answer. Raises UpstreamError, BudgetExhausted, LeaseLost or Unavailable; nothing is tried again here."""
        return await self._till.calling(self._work, self._spending, kind).ask(prompt)

    def told(self) -> str:
        """What was spent, as the ledger takes it: for whoever writes what it was spent on."""
        return self._till.told(self._work)

    async def booked(self) -> None:
        """The ledger has what was spent, and nothing is held. Raises LeaseLost or Unavailable."""
        await self._spending.settled()
        await self._till.post(self._work, self._work.postable(), self._work.rows)


def _never_wait() -> bool:
    """Whoever waits for a server here holds a task that another worker could do."""
    return True


def _say_nothing(_text: str) -> None: ...
