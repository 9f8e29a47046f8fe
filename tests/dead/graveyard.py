"""Dead jobs on demand: by the real pipe (`kill`), or written into the books at once (`bury`)."""

from typing import Any

import asyncpg
import msgspec

from ops.dead.desk import Desk
from ops.dead.edit import Edit
from ops.dead.retry import Retried
from shared.config import Settings
from shared.db import jsonb
from shared.ids import uuid7
from shared.wire import TurnPayload
from sql import queries
from tests.sql.shapes import CREATED_US, DEAD, a_turn
from tests.turn.deployment import TENANT, Deployment

DOOMED = {"match": "doomed", "faults": [{"status": 400, "times": 100}]}
"""Final at once: one attempt a run."""


async def kill(deployment: Deployment, text: str = "doomed", **fields: Any) -> str:
    """A job that has died in a worker, in the real way; the model answers again afterwards."""
    await deployment.behave({**DOOMED, "match": text})
    async with deployment.worker():
        job_id = await deployment.say(text, **fields)
        assert (await deployment.ended(job_id)).state == "dead"
    await deployment.behave()
    return job_id


async def bury(app_dsn: str, *, tenant: str = TENANT, age_s: float = 60.0, **fields: Any) -> str:
    """A dead row as a worker leaves it once Redis has forgotten the job. `code` is its error's."""
    job_id, code = uuid7(), fields.pop("code", "upstream_unavailable")
    turn = a_turn(
        **{
            **DEAD,
            "job_id": job_id,
            "conversation_id": job_id,
            "error": {"code": code, "message": "The provider did not answer.", "retryable": True},
            "created_us": CREATED_US - round(age_s * 1_000_000),
            "finished_us": CREATED_US - round(age_s * 1_000_000) + 1,
            **fields,
        }
    )
    turn["started_us"] = turn["created_us"]
    if "payload" not in fields:
        turn["payload"] = msgspec.to_builtins(payload_of(turn, tenant))
    connection = await asyncpg.connect(app_dsn)
    try:
        await connection.fetchrow(queries["end_job"], tenant, jsonb(turn))
    finally:
        await connection.close()
    return job_id


def payload_of(turn: dict[str, Any], tenant: str) -> TurnPayload:
    names = ("job_id", "agent", "conversation_id", "message", "user_id", "metadata", "callback_url", "queue")
    return TurnPayload(tenant=tenant, **{name: turn[name] for name in names})


async def retry(desk: Desk, job_id: str, position: Any = "end", *, tenant: str | None = None, **edit: Any) -> Retried:
    return await desk.retrier.retry(tenant, job_id, position=position, by="tests", edit=Edit(**edit))


def settings_with(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)
