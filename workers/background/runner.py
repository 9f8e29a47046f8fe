"""Works off memory's tasks in a delivery process, a few at a time: claim → look → ask → write → end.

Killed anywhere, the task is due again when its lease is over, and its next claim books what was paid for. A failure
keeps what there is: the old summary, the facts of before. Chats wait for none of it: it
runs in the delivery process, and a provider that is busy is not waited for.
"""

import asyncio
import contextlib
import random
import time
from functools import partial
from typing import Literal, TypeAlias, assert_never

import structlog

from shared.config import Settings
from shared.errors import AgentError, BudgetExhausted, LeaseLost, SwitchboardError, Unavailable
from shared.jobs import JobError
from shared.telemetry import context
from workers import metrics
from workers.background import facts, summary
from workers.background.money import Account, Till
from workers.background.tasks import Material, SaidMessage, Task, TaskStore
from workers.turn.store import persist

log = structlog.get_logger("memory")

Outcome: TypeAlias = Literal["written", "late", "nothing", "retried", "given_up", "lost"]
"""`late`: somebody else had written. `nothing`: there was nothing to do. `given_up`: not again for hours. `lost`: the
task is somebody else's by now."""

POLL_S = 2.0
RETRY_S = 30.0
MAX_ATTEMPTS = 4
GIVE_UP_S = 6 * 3_600.0
BUDGET_RETRY_S = 3_600.0
KEPT_MESSAGES = 10
"""The newest of a conversation, which are shown as they are, so that no summary need have them."""
LEASE_MARGIN_S = 60.0
_BOOK_S = 2.0


class Runner:
    """One per process."""

    def __init__(self, settings: Settings, store: TaskStore, till: Till) -> None:
        self._store, self._till = store, till
        self._slots, self._drain_s = settings.memory_tasks, settings.drain_s
        self._slice_tokens = settings.context_tokens // 3
        self._lease_s = settings.model_timeout_s + LEASE_MARGIN_S
        self._running: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled; then what is under way may end, for as long as a drain may take."""
        try:
            while True:
                claimed = await self._claimed()
                for task in claimed:
                    self._start(task)
                await self._rest(full=len(self._running) >= self._slots)
        finally:
            await self._leave()

    async def _claimed(self) -> list[Task]:
        free = self._slots - len(self._running)
        if free <= 0:
            return []
        try:
            return await self._store.claim(free, self._lease_s)
        except Unavailable as error:
            log.warning("memory.outage", fault=str(error))
        except Exception:  # a fault of ours must not end the tasks for good
            log.exception("memory.broke")
        return []

    def _start(self, task: Task) -> None:
        running = asyncio.create_task(self._work(task))
        self._running.add(running)
        running.add_done_callback(self._ended)

    def _ended(self, running: "asyncio.Task[None]") -> None:
        self._running.discard(running)
        self._freed.set()

    async def _rest(self, *, full: bool) -> None:
        """Until there may be more to do: a task that ends may leave its next one."""
        self._freed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if full else POLL_S * random.uniform(0.75, 1.25)):  # noqa: S311 - no secret
                await self._freed.wait()

    async def _leave(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=self._drain_s)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    # --- one task -----------------------------------------------------------------------------------------------

    async def _work(self, task: Task) -> None:
        conversation = context.conversation(task.conversation_id)
        ids = {"tenant": task.tenant, "conversation_id": conversation, "task_id": task.task_id}
        with structlog.contextvars.bound_contextvars(**ids):
            outcome: Outcome = "lost"
            error: JobError | None = None
            try:
                outcome, error = await self._tried(task)
            except (LeaseLost, Unavailable) as fault:  # it is due again when the lease is over
                error = JobError(fault.code, str(fault))
            except Exception:  # a fault of ours: the same
                log.exception("memory.broke")
                error = JobError("internal_error", "a fault of ours")
            metrics.count_task(task.kind, outcome)
            code = error.code if error else None
            log.info("memory.task", kind=task.kind, outcome=outcome, attempt=task.attempt, code=code)

    async def _tried(self, task: Task) -> tuple[Outcome, JobError | None]:
        material = await self._store.material(task, KEPT_MESSAGES)
        if material is None:
            return "lost", None
        messages = summary.fold(material.messages, self._slice_tokens)
        async with self._till.opened(task, material, self._lease_s) as account:
            if not messages or not material.tenant_known:
                await self._store.end(task, skip_to=_last(material))
                return "nothing", None
            try:
                written = await self._written(task, material, messages, account)
            except asyncio.CancelledError:
                with contextlib.suppress(TimeoutError, LeaseLost, Unavailable):
                    async with asyncio.timeout(_BOOK_S):
                        await account.booked()
                        await self._store.end(task, JobError("worker_stopped", "its worker stopped"), retry_s=0)
                raise
            except (LeaseLost, Unavailable):
                raise
            except SwitchboardError as error:
                await account.booked()
                return await self._failed(task, error, messages[-1].seq)
        await self._store.end(task)
        return ("written" if written else "late"), None

    async def _written(self, task: Task, material: Material, messages: list[SaidMessage], account: Account) -> bool:
        """Asks, and writes what came of it in the transaction that books it: from then on nobody pays for it again.

        While Postgres is away the answer, which is paid for, waits here for as long as the task is ours.
        """
        upto, until_s = (material.done_seq, messages[-1].seq), time.monotonic() + self._lease_s
        match task.kind:
            case "summary":
                made = summary.read(await account.ask(summary.prompt(material, messages), task.kind))
                commit = partial(self._store.commit_summary, task, upto, made, account.told())
            case "facts":
                completion = await account.ask(facts.prompt(material, messages), task.kind)
                found = facts.believed(completion.text, messages)
                commit = partial(self._store.commit_facts, task, upto, found, account.told())
            case _:
                assert_never(task.kind)
        written = await persist(commit, lambda: time.monotonic() > until_s)
        await account.booked()
        return written

    async def _failed(self, task: Task, error: SwitchboardError, upto: int) -> tuple[Outcome, JobError]:
        """Tried again later and later; a model's answer that cannot be used is not asked for for ever."""
        told = JobError(error.code, str(error), error.retryable)
        end = partial(self._store.end, task, told)
        if isinstance(error, BudgetExhausted):
            await end(retry_s=BUDGET_RETRY_S)
        elif task.attempt < MAX_ATTEMPTS:
            await end(retry_s=RETRY_S * 2 ** (task.attempt - 1) * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
        elif isinstance(error, AgentError) and task.kind == "facts":
            await end(skip_to=upto)
            return "given_up", told
        else:
            await end(retry_s=GIVE_UP_S)
            return "given_up", told
        return "retried", told


def _last(material: Material) -> int | None:
    return material.messages[-1].seq if material.messages else None
