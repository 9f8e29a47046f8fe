"""What the doctor says of all that goes on beside the conversations, each fault made on a real database."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from pydantic import SecretStr

from ops.doctor.findings import Level
from ops.doctor.memory import LATE_S
from ops.stack.standin import Standin
from ops.users.whom import Seals, Whom
from shared.config import Settings
from shared.sealing import Sealer, credentials_about
from sql import queries
from tests.channels.providers import PROVIDERS
from tests.conftest import Database
from tests.doctor.conftest import Examine
from tests.sql.shapes import a_turn
from workers.erasure.subjects import Subjects, erasure_keys

TENANT = "acme"
KEY, OTHER = (base64.b64encode(byte * 32).decode() for byte in (b"k", b"o"))


@pytest.fixture
async def books(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """As superuser."""
    connection = await asyncpg.connect(database.superuser)
    await connection.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, 'Acme')", TENANT)
    yield connection
    await connection.close()


async def ended(books: asyncpg.Connection, **fields: Any) -> str:
    """A turn, as workers commit it."""
    turn = a_turn(**fields)
    await books.fetchrow(queries["commit_turn"], TENANT, json.dumps(turn))
    job_id: str = turn["job_id"]
    return job_id


async def an_hour_ago(books: asyncpg.Connection, table: str, column: str) -> None:
    await books.execute(f"UPDATE {table} SET {column} = now() - interval '1 hour'")  # noqa: S608 - names from here


async def a_channel(books: asyncpg.Connection, kind: str, number: int = 1, **credentials: Any) -> str:
    channel, provider = f"ch-{kind:x<15}{number}", PROVIDERS[kind]
    secret = msgspec.json.encode(credentials or provider.credentials)
    sealed = Sealer(KEY).seal(secret, about=credentials_about(TENANT, channel))
    settings = {name: value for name, value in provider.settings.items() if name != "public_url"}
    document = {"kind": kind, "name": kind, "agent": "support", "settings": settings, "held": {}}
    await books.fetchval(queries["create_channel"], TENANT, channel, json.dumps(document), sealed, "tests")
    return channel


async def test_deliveries_that_nobody_sends(examined: Examine, books: asyncpg.Connection) -> None:
    await ended(books, callback_url="https://example.com/hook")
    assert (await examined())["deliveries"].level is Level.OK
    await an_hour_ago(books, "deliveries", "created_at")
    found = await examined()
    assert found["deliveries"].level is Level.FAULT
    assert "1 under way or waiting; what is due has been left alone for 3600 s" in found["deliveries"].what
    assert "deliveries.parked" not in found
    await books.execute("UPDATE deliveries SET state = 'parked', seen = true, parked_at = now()")
    await an_hour_ago(books, "receivers", "look_at")  # its row waits for a look, as after any change
    found = await examined()
    assert {found["deliveries"].level, found["deliveries.parked"].level} == {Level.FAULT, Level.WARNING}


async def test_a_receiver_that_is_being_sent_to_is_not_left_alone(examined: Examine, books: asyncpg.Connection) -> None:
    """However much more it is owed; but once a lease has run out, nobody is sending."""
    for conversation in ("c1", "c2"):
        await ended(books, conversation_id=conversation, callback_url="https://example.com/hook")
    await books.execute(
        "UPDATE deliveries SET seen = true, due_at = due_at - interval '1 second'"
    )  # marks the receiver

    async def level() -> Level:
        await an_hour_ago(books, "receivers", "look_at")
        return (await examined())["deliveries"].level

    assert await level() is Level.FAULT
    await books.execute(
        "UPDATE deliveries SET state = 'sending', lease_until = now() + interval '1 hour' "
        "WHERE delivery_id = (SELECT delivery_id FROM deliveries LIMIT 1)"
    )
    assert await level() is Level.OK
    await books.execute("UPDATE deliveries SET lease_until = now() - interval '1 second' WHERE state = 'sending'")
    assert await level() is Level.FAULT


async def test_an_endpoint_that_was_given_up(examined: Examine, books: asyncpg.Connection) -> None:
    args = (TENANT, "https://example.com/hook", "", [], "test", 10, "switchboard")
    made = json.loads(await books.fetchval(queries["create_endpoint"], *args))
    assert (await examined())["endpoints"].level is Level.OK
    await books.execute("UPDATE endpoints SET disabled_at = now(), disabled_why = 'failing'")
    finding = (await examined())["endpoints"]
    assert finding.level is Level.WARNING
    assert finding.mend == f"once it answers: switchboard endpoints set {made['id']} --enable"


async def test_channels_that_cannot_send_and_why(examined: Examine, books: asyncpg.Connection) -> None:
    channel = await a_channel(books, "telegram")
    found = (await examined(credentials_key=SecretStr(KEY)))["channels"]
    assert (found.level, found.what) == (Level.OK, "1 channels can send")
    for key in ("", OTHER):
        finding = (await examined(credentials_key=SecretStr(key)))["channels"]
        assert (finding.level, "SWITCHBOARD_CREDENTIALS_KEY" in str(finding.mend)) == (Level.FAULT, True)
    silent = await a_channel(books, "whatsapp", app_secrets=["meta-secret"], verify_token="let me in")
    finding = (await examined(credentials_key=SecretStr(KEY)))["channels"]
    assert (finding.level, finding.mend) == (Level.FAULT, f"switchboard channels set {silent}")
    assert finding.what.startswith(f"1 of 2 channels cannot send, e.g. {silent}: the channel has no access_token")
    await books.execute(
        "INSERT INTO receivers (tenant_id, receiver, paused_why, paused_at, pauses) "
        "SELECT $1, receiver_of_channel($2), $3, now(), 1",
        TENANT,
        channel,
        json.dumps({"code": "unauthorized", "message": "a provider's prose"}),
    )
    await a_channel(books, "twilio")
    found_now = await examined(credentials_key=SecretStr(KEY))
    paused, deaf = found_now["channels.paused"], found_now["channels.statuses"]
    assert (paused.level, "(unauthorized)" in paused.what, "prose" in paused.what) == (Level.WARNING, True, False)
    assert (deaf.level, deaf.mend) == (Level.WARNING, "SWITCHBOARD_PUBLIC_URL=https://chat.example.com")
    heard = await examined(credentials_key=SecretStr(KEY), public_url="https://chat.example.com")
    assert "channels.statuses" not in heard


async def test_mail_without_a_server(examined: Examine, books: asyncpg.Connection) -> None:
    rule = {"metric": "budget", "targets": [{"kind": "email", "to": "ada@example.com"}]}
    await books.execute(
        "INSERT INTO alerts (tenant_id, name, rule, updated_by) VALUES ('*', 'a', $1, 'tests')", json.dumps(rule)
    )
    assert (await examined())["mail"].level is Level.FAULT
    assert (await examined(smtp_url="smtp://mail.example.org"))["mail"].level is Level.OK


async def test_the_model_that_memory_is_searched_by(examined: Examine, books: asyncpg.Connection) -> None:
    small, unpriced = "openai:text-embedding-3-small", "openai:bge-m3@8"
    assert (await examined(embedding_model="none"))["embeddings"].level is Level.OK
    assert (await examined(embedding_model=small))["embeddings"].level is Level.WARNING
    model_id = await books.fetchval(queries["ensure_embedding_model"], small, 1536, 0.2)
    assert (await examined(embedding_model=small))[f"embeddings.{small}"].level is Level.OK
    other = (await examined(embedding_model=unpriced))["embeddings.other"]
    assert (other.level, other.mend) == (Level.WARNING, f"switchboard memory models add {unpriced} --activate")
    without_key = (await examined(embedding_model=small, openai_api_key=None))[f"embeddings.{small}"]
    assert (without_key.level, "needs OPENAI_API_KEY" in without_key.what) == (Level.FAULT, True)
    await books.fetchval(queries["add_embedding_model"], unpriced, 8, 0.2)
    assert "not known" in (await examined(embedding_model=small))[f"embeddings.{unpriced}"].what
    await a_text_waits(books, model_id)
    await books.execute("UPDATE memory_pending SET attempts = 5")
    assert (await examined(embedding_model=small))[f"embeddings.{small}"].level is Level.WARNING
    await an_hour_ago(books, "memory_pending", "due_at")
    overdue = (await examined(embedding_model=small))[f"embeddings.{small}"]
    assert (overdue.level, "3600 s overdue" in overdue.what) == (Level.FAULT, True)


async def a_text_waits(books: asyncpg.Connection, model_id: int) -> None:
    """Without the item, the message and the conversation it belongs to."""
    await books.execute("SET session_replication_role = replica")
    await books.execute(
        "INSERT INTO memory_pending (model_id, item_id, tenant_id, user_id) VALUES ($1, 1, $2, 'u1')", model_id, TENANT
    )


async def test_a_model_is_asked_for_a_word_when_we_may(
    examined: Examine, books: asyncpg.Connection, standin: Standin
) -> None:
    small = "openai:text-embedding-3-small"
    await books.fetchval(queries["ensure_embedding_model"], small, 1536, 0.2)
    await books.fetchval(queries["add_embedding_model"], "openai:bge-m3@8", 8, 0.2)
    found = await examined(online=True, openai_base_url=f"{standin.url}/v1")
    right, wrong = found[f"embeddings.{small}.online"], found["embeddings.openai:bge-m3@8.online"]
    assert (right.level, right.what) == (Level.OK, "answers in 1536 dimensions")
    assert wrong.level is Level.FAULT


async def test_what_memory_has_not_taken_in(examined: Examine, books: asyncpg.Connection) -> None:
    await ended(books, memory=True)
    found = (await examined())["memory"]
    assert (found.level, found.what) == (Level.OK, "1 turns are not taken in yet")
    await an_hour_ago(books, "memory_outbox", "created_at")
    assert (await examined())["memory"].level is Level.FAULT
    await books.execute("UPDATE memory_outbox SET attempts = 1, last_error = 'x'")
    assert "1 could not be" in (await examined())["memory"].what
    await books.execute(
        "INSERT INTO memory_tasks (tenant_id, conversation_id, kind, due_at) VALUES ($1, $2, 'summary', now())",
        TENANT,
        "conversation-1",
    )
    await an_hour_ago(books, "memory_tasks", "due_at")
    finding = (await examined())["memory.summary"]
    assert (finding.level, LATE_S < 3_600) == (Level.WARNING, True)


async def test_an_erasure_that_waits_or_cannot_be_read(
    examined: Examine, books: asyncpg.Connection, settings: Settings
) -> None:
    deployment = await books.fetchval("SELECT id::text FROM deployment")
    seals = Seals(erasure_keys(settings, deployment), Subjects.of(settings, deployment))
    whom = Whom(tenant=TENANT, user="u1", conversations=[])
    await books.execute(
        "INSERT INTO erasures (tenant_id, kind, subject, sealed, erased_before, requested_by) "
        "VALUES ($1, 'user', $2, $3, now(), 'tests')",
        TENANT,
        seals.subject(whom),
        seals.seal(whom),
    )
    assert (await examined())["erasures"].what == "1 under way"
    await an_hour_ago(books, "erasures", "requested_at")
    waits = (await examined())["erasures"]
    assert (waits.level, "console" in str(waits.mend)) == (Level.FAULT, True)
    lost = (await examined(erasure_key=SecretStr("another one of 16 or more")))["erasures"]
    assert (lost.level, "SWITCHBOARD_ERASURE_KEY" in str(lost.mend)) == (Level.FAULT, True)


async def test_without_the_role_that_sees_all_it_is_said_that_nobody_looked(examined: Examine) -> None:
    found = await examined(ops_database_url=None)
    assert "deliveries, memory and erasures are not looked at" in found["postgres.login.ops"].what
    assert {"deliveries", "channels", "memory", "embeddings", "erasures"} & found.keys() == set()


async def test_a_schema_that_is_older_than_its_checks(examined: Examine, empty_database: Database) -> None:
    found = await examined(ops_database_url=empty_database.ops)
    assert (found["deliveries"].level, found["deliveries"].mend) == (Level.WARNING, "switchboard migrate")
    assert not any(one.what.startswith("the check itself broke") for one in found.values())


async def test_the_caches_own_server(examined: Examine, settings: Settings) -> None:
    assert (await examined(cache_redis_url=settings.redis_url))["redis.cache"].level is Level.OK
    away = (await examined(cache_redis_url="redis://127.0.0.1:1/0"))["redis.cache"]
    assert (away.level, away.mend) == (Level.WARNING, "start it, or mend SWITCHBOARD_CACHE_REDIS_URL")


async def test_who_hears_of_errors(examined: Examine) -> None:
    assert (await examined())["reports"].level is Level.WARNING
    useless = (await examined(trace_sample=0.5))["reports"]
    assert "SWITCHBOARD_TRACE_SAMPLE=0.5 does nothing" in useless.what
    dsn = SecretStr("https://key@sentry.example/1")
    assert (await examined(sentry_dsn=dsn, trace_sample=0.5))[
        "reports"
    ].what == "errors go to Sentry, and 50% of the traces"
