"""What `switchboard memory` does: open Postgres as the role that sees all tenants, act, print.

The work itself (embedding, deleting) is the delivery processes'; a command only says what is wanted, and watches. It
may be stopped and typed again at any time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ops.sight import sees_all_tenants
from ops.terminal.output import Printer, note
from ops.terminal.session import postgres, said
from shared.config import Settings
from shared.db import Pool, Row
from shared.errors import ConfigError, InvalidRequest
from shared.ids import is_uuid
from sql import queries
from workers.embeddings.catalog import floor_of, read_name

LOOK_S = 0.5
STILL_S = 30.0
"""A bar that has not moved for so long says what may be missing."""

_MODELS = ("name", "state", "dimensions", "floor", "done", "pending", "failing", "activated_at")
_LATE = ("model", "item", "attempts", "due_at", "last_error")
_REFUSALS = {
    "unknown": "there is no such model: `switchboard memory models add` it",
    "retiring": "its vectors are being deleted",
    "retired": "its vectors are gone: `switchboard memory models add` brings it back",
    "active": "it is what memory is searched by: activate another one first",
    "incomplete": "some memories lack its vector: `switchboard memory models progress` shows how many; or --force",
    "too_soon": "another model became active a moment ago, and workers may still search by this one: try again in 30 s",
}


class Progressing(msgspec.Struct, frozen=True):
    """`done` of `items` have their vector; `gap`: what the active model has and this one lacks."""

    items: int
    done: int
    pending: int
    failing: int
    gap: int
    unfilled: int

    @property
    def complete(self) -> bool:
        return not self.gap and not self.unfilled


def run(settings: Settings, action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> int:
    """The action's exit code. Raises SwitchboardError in one line for what is not about the request."""

    async def act() -> int:
        async with _opened(settings) as pool:
            return await action(Terminal(pool, Printer(json=json), silent=json))

    return said(act)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Pool]:
    async with postgres(settings) as pool:
        if not await sees_all_tenants(pool):
            raise ConfigError(
                "models are for all tenants: set SWITCHBOARD_OPS_DATABASE_URL to the role switchboard_ops"
            )
        yield pool


class Terminal:
    def __init__(self, pool: Pool, printer: Printer, *, silent: bool = False) -> None:
        self._pool, self._printer, self._silent = pool, printer, silent

    async def list(self) -> int:
        rows = await self._pool.fetch(queries["embedding_models"])
        self._printer.rows([await self._resource(row) for row in rows], _MODELS)
        return 0

    async def add(self, name: str, floor: float | None, *, activate: bool, wait: bool) -> int:
        known = read_name(name)
        floor = floor_of(name) if floor is None else floor
        before = await self._pool.fetchval(queries["add_embedding_model"], name, known.dimensions, floor)
        if before == "retiring":
            raise InvalidRequest(f"{name}: {_REFUSALS['retiring']}, wait until they are")
        if before in (None, "retired"):
            note(f"{name} is built in the background by the delivery processes")
        if wait:
            await self._watch(name)
        if not activate or before == "active":
            return 0
        while not await self._activated(name):
            await self._watch(name)  # something was said meanwhile
        return 0

    async def activate(self, name: str, *, force: bool) -> int:
        if not await self._activated(name, force=force):
            raise InvalidRequest(f"{name}: {_REFUSALS['incomplete']}")
        return 0

    async def retire(self, name: str, *, wait: bool) -> int:
        refusal = await self._pool.fetchval(queries["retire_embedding_model"], name)
        self._refuse(name, refusal)
        if wait:
            await self._emptied(name)
        return 0

    async def progress(self, name: str) -> int:
        await self._watch(name)
        return 0

    async def late(self, tenant: str, job: str) -> int:
        if not is_uuid(job):
            raise InvalidRequest(f"{job!r} is no job's id")
        rows = await self._pool.fetch(queries["late_embeddings"], tenant, job)
        names = {"item": "item_id", "model": "model", "attempts": "attempts", "last_error": "last_error"}
        shown = [
            {**{key: row[column] for key, column in names.items()}, "due_at": _text(row["due_at"])} for row in rows
        ]
        self._printer.rows(shown, _LATE)
        return 0

    async def _resource(self, row: Row) -> dict[str, Any]:
        made = {name: row[name] for name in ("name", "state", "dimensions")}
        made |= {"floor": round(row["floor"], 4), "activated_at": _text(row["activated_at"])}
        if row["state"] in ("active", "building"):
            found = await self._progress(row["model_id"])
            made |= {"items": found.items, "done": found.done, "pending": found.pending, "failing": found.failing}
            made |= {"gap": found.gap, "unfilled": found.unfilled}
        return made

    async def _progress(self, model_id: int) -> Progressing:
        row = await self._pool.fetchrow(queries["embedding_progress"], model_id)
        if row is None:
            raise RuntimeError("embedding_progress returns one row")
        items, lacking = row["items"], row["pending"] + row["unfilled"]
        return Progressing(items, max(0, items - lacking), row["pending"], row["failing"], row["gap"], row["unfilled"])

    async def _watch(self, name: str) -> None:
        """A bar until the model lacks nothing that the active one has. Raises InvalidRequest for one that is going."""
        found = await self._progress((await self._model(name))["model_id"])
        with self._bar() as bar:
            task = bar.add_task(name, total=found.items, completed=found.done)
            moved_s, told = 0.0, False
            while not found.complete:
                await asyncio.sleep(LOOK_S)
                model, before = await self._model(name), found.done
                found = await self._progress(model["model_id"])
                bar.update(task, total=found.items, completed=found.done)
                moved_s = 0.0 if found.done != before else moved_s + LOOK_S
                if moved_s >= STILL_S and not told:
                    note("nothing moves: is a delivery process running, and can it reach the model? See its log.")
                    told = True
        if found.failing:
            note(f"{found.failing} texts failed again and again, and are tried from time to time")
        self._printer.one({"model": name, **msgspec.structs.asdict(found)})

    async def _activated(self, name: str, *, force: bool = False) -> bool:
        """False while it lacks something."""
        refusal = await self._pool.fetchval(queries["activate_embedding_model"], name, force)
        if refusal == "incomplete":
            return False
        self._refuse(name, refusal)
        note(f"memory is searched by {name} from now on")
        return True

    async def _model(self, name: str) -> Row:
        for row in await self._pool.fetch(queries["embedding_models"]):
            if row["name"] == name:
                if row["state"] in ("retiring", "retired"):
                    raise InvalidRequest(f"{name}: {_REFUSALS[row['state']]}")
                return row
        raise InvalidRequest(f"{name}: {_REFUSALS['unknown']}")

    async def _emptied(self, name: str) -> None:
        with self._bar() as bar:
            bar.add_task(f"deleting vectors of {name}", total=None)
            while True:
                rows = await self._pool.fetch(queries["embedding_models"])
                if all(row["state"] == "retired" for row in rows if row["name"] == name):
                    return
                await asyncio.sleep(LOOK_S)

    def _bar(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=Console(stderr=True), disable=self._silent)

    def _refuse(self, name: str, refusal: str | None) -> None:
        if refusal is not None:
            raise InvalidRequest(f"{name}: {_REFUSALS[refusal]}")


def _text(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
