"""A delivery process inside the test, channels of every kind, and the stand-in of their providers."""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from ops.stack.standin import Standin
from shared.config import Settings
from shared.db import jsonb
from shared.sealing import Sealer, credentials_about
from sql import queries
from tests.channels.providers import PROVIDERS
from tests.conftest import Database, _eventually
from tests.delivery.conftest import TENANT, books, running  # noqa: F401 - fixtures of the deliveries' own tests
from tests.sql.shapes import a_turn

SEALING_KEY = b64encode(b"k" * 32).decode()
DETAILS: dict[str, dict[str, Any]] = {
    "whatsapp": {"message_id": "wamid.asked", "to": "16505551"},
    "telegram": {"message_id": "5", "chat_id": "771"},
    "twilio": {"message_id": "SM1", "from": "whatsapp:+16505551"},
    "slack": {"message_id": "1.0", "channel": "C1", "thread": "1.0"},
}


def now_us() -> int:
    return time.time_ns() // 1_000


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    urls = ",".join(f"{kind}={standin.url}/messengers/{kind}" for kind in PROVIDERS)
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "ops_database_url": database.ops,
            "secret": "a secret of tests, long enough",
            "credentials_key": SEALING_KEY,
            "channel_urls": urls,
            "delivery_timeout_s": 30.0,
        }
    )


@dataclass
class Replies:
    """`await replies.owe("hello")`: a job ends that came through the channel; then what became of its reply."""

    books: asyncpg.Connection
    provider: httpx.AsyncClient
    kind: str
    channel_id: str
    jobs: list[str] = field(default_factory=list)

    async def owe(
        self, reply: str | None, *, conversation: str = "c1", to: dict[str, Any] | None = None, **turn: Any
    ) -> str:
        """The delivery's id."""
        at_us = turn.pop("at_us", now_us())
        details = {"id": self.channel_id, "kind": self.kind, **DETAILS[self.kind], **(to or {})}
        end = a_turn(
            callback_url=f"channel://{self.channel_id}",
            conversation_id=conversation,
            user_id=None,
            metadata={"channel": details},
            reply=reply,
            **{"created_us": at_us, "started_us": at_us, "finished_us": at_us, **turn},
        )
        query = "commit_turn" if end["state"] == "succeeded" else "end_job"
        await self.books.fetchrow(queries[query], TENANT, json.dumps(end))
        self.jobs.append(end["job_id"])
        found = await self.books.fetchval("SELECT delivery_id FROM deliveries WHERE job_id = $1", end["job_id"])
        return str(found)

    async def taken(self) -> list[dict[str, Any]]:
        """Messages that the provider took, in order."""
        return [one for one in await self.served() if one["outcome"] == "taken" and one["kind"] == "message"]

    async def texts(self) -> list[str]:
        return [one["text"] for one in await self.taken()]

    async def served(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.provider.get("/messengers/_served")).json()
        return found

    async def misbehave(self, *faults: dict[str, Any]) -> None:
        given = [{"provider": self.kind, **fault} for fault in faults]
        (await self.provider.post("/messengers/_faults", json=given)).raise_for_status()

    async def shown(self, delivery: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.books.fetchval(queries["delivery_detail"], None, delivery))
        return found

    async def states(self) -> list[str]:
        rows = await self.books.fetch("SELECT state FROM deliveries ORDER BY sequence, delivery_id")
        return [row["state"] for row in rows]

    async def become(self, *states: str) -> None:
        async def are() -> bool:
            return await self.states() == list(states)

        try:
            await _eventually(are)
        except AssertionError:
            raise AssertionError(f"{await self.states()} are not {list(states)}") from None

    async def fault(self, delivery: str, code: str) -> dict[str, Any]:
        """The delivery once it shows this fault."""

        async def shows() -> dict[str, Any] | None:
            shown = await self.shown(delivery)
            return shown if (shown["error"] or {}).get("code") == code else None

        found: dict[str, Any] = await _eventually(shows)
        return found

    async def attempts(self) -> list[tuple[Any, ...]]:
        """Outcome and code of every one in the log."""
        query = "SELECT outcome, code FROM delivery_attempts ORDER BY delivery_id, attempt"
        return [tuple(row) for row in await self.books.fetch(query)]

    async def told(self, message_id: str, state: str, **more: Any) -> None:
        """The provider tells a status, which a worker has written down."""
        row = {"channel": self.channel_id, "message_id": message_id, "state": state, "received_us": now_us(), **more}
        await self.books.fetchval(queries["note_inbound"], TENANT, jsonb([row]))

    async def pass_time(self, seconds: float) -> None:
        """Everything that was noted was so much longer ago."""
        span = f"interval '{seconds} seconds'"
        for table, columns in (
            ("deliveries", ("due_at", "first_failed_at", "lease_until", "put_off_since")),
            ("receivers", ("open_until", "failing_since", "paused_at")),
            ("channel_paces", ("next_at", "blocked_until")),
        ):
            moves = ", ".join(f"{column} = {column} - {span}" for column in columns)
            await self.books.execute(f"UPDATE {table} SET {moves}")  # noqa: S608 - names from here


Connect = Callable[..., Awaitable[Replies]]


@pytest.fixture
async def connect(books: asyncpg.Connection, standin: Standin) -> AsyncIterator[Connect]:  # noqa: F811 - the fixture
    """`await connect("whatsapp", in_doubt="hold")`: a channel of the tenant, and its provider."""
    clients = []

    async def make(kind: str, *, credentials: dict[str, Any] | None = None, **settings: Any) -> Replies:
        provider = PROVIDERS[kind]
        channel_id = f"ch-{kind:x<16}"
        secrets = provider.credentials if credentials is None else credentials
        sealed = Sealer(SEALING_KEY).seal(msgspec.json.encode(secrets), about=credentials_about(TENANT, channel_id))
        document = {
            "kind": kind,
            "name": kind,
            "agent": "support",
            "domain": None,
            "feature": None,
            "settings": {**provider.settings, **settings},
            "held": {},
        }
        await books.fetchval(queries["create_channel"], TENANT, channel_id, jsonb(document), sealed, "tests")
        client = httpx.AsyncClient(base_url=standin.url)
        clients.append(client)
        return Replies(books, client, kind, channel_id)

    yield make
    await asyncio.gather(*(client.aclose() for client in clients))


@pytest.fixture
async def whatsapp(connect: Connect) -> Replies:
    return await connect("whatsapp")
