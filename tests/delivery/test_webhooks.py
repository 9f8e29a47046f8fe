"""What a receiver gets, and what becomes of a delivery by what it answers."""

import hmac
import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import asyncpg
import pytest

from shared.config import Settings
from shared.telemetry import context
from sql import queries
from tests.conftest import Eventually
from tests.delivery.conftest import TENANT, Owe, Running, earlier, states
from tests.delivery.receiver import Post, Receiver, receiving
from tests.telemetry.conftest import Lines
from tests.telemetry.conftest import lines as lines  # noqa: PLC0414 - a fixture, used by its name
from workers.delivery.outcome import RETRY_AFTER_S
from workers.delivery.signing import Signer


async def secret_of(settings: Settings, books: asyncpg.Connection, owner: str, serial: int) -> str:
    deployment = await books.fetchval("SELECT id::text FROM deployment")
    return Signer.of(settings, deployment).secret(TENANT, owner, serial)


def is_signed(post: Post, secret: str) -> bool:
    """The specification by hand; other people's packages say the same in test_other_verifiers.py."""
    signed = f"{post.headers['webhook-id']}.{post.headers['webhook-timestamp']}.".encode() + post.body
    digest = hmac.digest(b64decode(secret.removeprefix("whsec_")), signed, "sha256")
    return f"v1,{b64encode(digest).decode()}" in post.headers["webhook-signature"].split(" ")


async def endpoint(
    books: asyncpg.Connection, url: str, *events: str, tenant: str = TENANT, form: str = "switchboard"
) -> str:
    made = await books.fetchval(queries["create_endpoint"], tenant, url, "", list(events), "test", 10, form)
    found: str = json.loads(made)["id"]
    return found


async def the_row(books: asyncpg.Connection) -> dict[str, Any]:
    return dict(await books.fetchrow("SELECT * FROM deliveries"))


async def test_a_callback_gets_the_job_once_signed_and_numbered(
    settings: Settings,
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    async with running():
        job = await owe(receiver.url)
        await eventually(lambda: receiver.posts)
        await eventually(lambda: _all_are(books, "delivered"))
    (post,) = receiver.posts
    assert (post.json["type"], post.json["sequence"], post.json["data"]["id"]) == ("job.succeeded", 1, job)
    assert post.json["data"]["reply"] == "hello!"
    assert post.json["timestamp"] == post.json["data"]["finished_at"]
    assert "tenant" not in post.json["data"]
    assert post.headers["content-type"] == "application/json"
    assert is_signed(post, await secret_of(settings, books, "default", 1))
    row = await books.fetchrow("SELECT delivery_id::text, attempts FROM deliveries")
    assert (post.headers["webhook-id"], row["attempts"]) == (row["delivery_id"], 1)
    log = await books.fetch("SELECT outcome, status FROM delivery_attempts")
    assert [tuple(one) for one in log] == [("delivered", 200)]


async def test_the_line_of_an_attempt_leads_to_the_job_and_names_nobody(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually, lines: Lines
) -> None:
    async with running():
        job = await owe(receiver.url, conversation="ada@example.com")
        await eventually(lambda: _all_are(books, "delivered"))
    (line,) = lines.all("delivery.attempt")
    assert (line["job_id"], line["tenant"], line["outcome"]) == (job, TENANT, "delivered")
    assert line["conversation_id"] == context.conversation("ada@example.com")
    assert "example.com" not in lines.text


async def _all_are(books: asyncpg.Connection, state: str) -> bool:
    found = await states(books)
    return bool(found) and set(found) == {state}


async def test_endpoints_get_the_events_they_want_with_the_callbacks_number(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    async with receiving() as picky, receiving() as foreign, running():
        await endpoint(books, receiver.url)
        await endpoint(books, picky.url, "job.dead")
        await endpoint(books, foreign.url, tenant="other")
        await owe(None)
        await owe("http://127.0.0.1:9/closed", conversation="c1")
        await owe(None, state="cancelled", reply=None, error={"code": "x", "message": "y", "retryable": False})
        await owe(None, state="dead", reply=None, error={"code": "x", "message": "y", "retryable": False})
        await eventually(lambda: len(receiver.posts) == 4 and len(picky.posts) == 1)
    events = [(post.json["type"], post.json["sequence"]) for post in receiver.posts]
    assert events == [("job.succeeded", 1), ("job.succeeded", 2), ("job.cancelled", 3), ("job.dead", 4)]
    assert [(post.json["type"], post.json["sequence"]) for post in picky.posts] == [("job.dead", 4)]
    assert foreign.posts == []


async def test_a_rejected_message_without_a_conversation_is_told_to_endpoints_too(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    await endpoint(books, receiver.url)
    await owe(None, state="rejected", reply=None, error={"code": "x", "message": "y", "retryable": False})
    async with running():
        await eventually(lambda: receiver.posts)
    assert receiver.posts[0].json["type"] == "job.rejected"


async def test_a_failure_is_tried_again_by_the_schedule_and_given_up_after_it(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.always = (500, {})
    await owe(receiver.url)
    async with running():
        for number, pause_s in enumerate(RETRY_AFTER_S, start=1):
            await eventually(lambda number=number: _attempted(books, number))
            due_s = await books.fetchval("SELECT extract(epoch FROM due_at - now()) FROM deliveries")
            assert pause_s * 0.85 < due_s < pause_s * 1.15
            await eventually(lambda state="retrying" if number == 1 else "parked": _all_are(books, state))
            await earlier(books, pause_s * 1.2 + 300)
        await eventually(lambda: _all_are(books, "failed"))
    assert len(receiver.posts) == 8
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 1
    assert len({post.body for post in receiver.posts}) == 1
    last = json.loads((await the_row(books))["last_error"])
    assert last == {"code": "server_error", "message": "answered 500: said", "status": 500}


async def _attempted(books: asyncpg.Connection, times: int) -> bool:
    return await books.fetchval("SELECT count(*) FROM delivery_attempts") == times  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["seconds", "date"])
async def test_what_a_receiver_asks_for_is_waited(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually, how: str
) -> None:
    asked = "1000" if how == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True)
    receiver.answer(429, retry_after=asked)
    await owe(receiver.url)
    async with running():
        await eventually(lambda: _all_are(books, "retrying"))
    due_s = await books.fetchval("SELECT extract(epoch FROM due_at - now()) FROM deliveries")
    assert 985 < due_s < 1001


async def test_a_redirect_is_not_followed(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    async with receiving() as inside, running():
        receiver.answer(302, location=inside.url)
        await owe(receiver.url)
        await eventually(lambda: _all_are(books, "retrying"))
        assert inside.posts == []
    assert json.loads((await the_row(books))["last_error"])["code"] == "redirect"


async def test_410_disables_the_endpoint_and_says_so_in_the_history(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    made = await endpoint(books, receiver.url)
    receiver.answer(410)
    async with running():
        await owe(None)
        await owe(None)  # behind it: it fails without a request
        await eventually(lambda: _all_are(books, "failed"))
    assert len(receiver.posts) == 1
    row = await books.fetchrow("SELECT disabled_why, endpoint_id::text FROM endpoints")
    assert tuple(row) == ("gone", made)
    event = await books.fetchrow("SELECT metric, scope, detail FROM alert_events")
    assert (event["metric"], event["scope"]) == ("endpoint_disabled", f"endpoint:{made}")
    await owe(None)
    assert len(await states(books)) == 2  # nobody is owed anything any more


async def test_an_endpoint_that_fails_for_days_is_disabled(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    await endpoint(books, receiver.url)
    receiver.always = (500, {})
    async with running(delivery_give_up_days=2):
        await owe(None)
        await eventually(lambda: _attempted(books, 1))
        await books.execute("UPDATE receivers SET failing_since = now() - interval '47 hours'")
        await earlier(books, 10)
        await eventually(lambda: _attempted(books, 2))
        assert await books.fetchval("SELECT disabled_at FROM endpoints") is None
        await books.execute("UPDATE receivers SET failing_since = now() - interval '49 hours'")
        await earlier(books, 400)
        await eventually(lambda: _disabled(books))
    assert await books.fetchval("SELECT disabled_why FROM endpoints") == "failing"


async def _disabled(books: asyncpg.Connection) -> bool:
    return await books.fetchval("SELECT disabled_at IS NOT NULL FROM endpoints")  # type: ignore[no-any-return]


async def test_a_rotated_secret_signs_beside_the_old_one_until_that_is_over(
    settings: Settings,
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    made = await endpoint(books, receiver.url)
    old, new = [await secret_of(settings, books, made, serial) for serial in (1, 2)]
    async with running():
        await owe(None)
        await eventually(lambda: len(receiver.posts) == 1)
        assert await books.fetchval(queries["rotate_signing_secret"], TENANT, made, 3_600) == 2
        await owe(None)
        await eventually(lambda: len(receiver.posts) == 2)
        await earlier(books, 3_601)
        await owe(None)
        await eventually(lambda: len(receiver.posts) == 3)
    assert [(is_signed(post, old), is_signed(post, new)) for post in receiver.posts] == [
        (True, False),
        (True, True),
        (False, True),
    ]


async def test_the_first_default_secret_is_the_one_callbacks_were_signed_with(
    settings: Settings,
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    async with running():
        await owe(receiver.url)
        await eventually(lambda: len(receiver.posts) == 1)
    assert await books.fetchval(queries["rotate_signing_secret"], TENANT, None, 60) == 1
    assert is_signed(receiver.posts[0], await secret_of(settings, books, "default", 1))


async def test_an_answer_without_end_is_cut_off(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.flood = True
    async with running():
        await owe(receiver.url)
        await eventually(lambda: _all_are(books, "delivered"))


async def test_nobody_answering_is_a_timeout_and_a_closed_port_no_connection(
    books: asyncpg.Connection, running: Running, owe: Owe, eventually: Eventually
) -> None:
    async with receiving(hangs=True) as silent, running(delivery_timeout_s=2.0):
        await owe(silent.url, conversation="a")
        await owe("http://127.0.0.1:9/", conversation="b")
        await eventually(lambda: _all_are(books, "retrying"))
    rows = await books.fetch("SELECT last_error->>'code' AS code FROM deliveries ORDER BY conversation_id")
    assert [row["code"] for row in rows] == ["timeout", "no_connection"]
