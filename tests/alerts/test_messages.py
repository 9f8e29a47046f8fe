"""An alert's way to people: through the outbox to Slack and into a mailbox, tried again like any delivery."""

import asyncpg
import pytest

from sql import queries
from tests.alerts.conftest import DOLLAR, NOW, SetRule, Spend
from tests.conftest import Eventually
from tests.delivery.conftest import Running, earlier, states
from tests.delivery.mailbox import receiving_mail
from tests.delivery.receiver import Receiver
from workers.alerts.judge import Judge


async def test_a_crossing_is_told_to_slack_and_by_mail(
    books: asyncpg.Connection,
    judge: Judge,
    running: Running,
    set_rule: SetRule,
    spend: Spend,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    async with receiving_mail() as mailbox:
        targets = [
            {"kind": "slack", "to": receiver.url},
            {"kind": "email", "to": "ada@example.org"},
            {"kind": "webhook", "to": f"http://127.0.0.1:{receiver.port}/signed"},
        ]
        await set_rule("budget", "0.8", scopes=["user-month"], targets=targets)
        await spend(8_120_000_000, user="<!channel> & co")
        assert await judge.judge(NOW) == 1
        async with running(smtp_url=mailbox.url, alert_from="switchboard@example.org"):
            await eventually(lambda: _are(books, {"delivered"}))
    slack, hook = sorted(receiver.posts, key=lambda post: post.path)
    said = "acme: 80 % of the budget of user {} is used: $8.12 of $10.00"
    assert slack.json["text"] == said.format("&lt;!channel&gt; &amp; co")
    assert slack.json["blocks"][0]["text"]["type"] == "mrkdwn"
    assert "webhook-signature" not in slack.headers
    assert (hook.json["type"], hook.json["data"]["value"]) == ("alert.crossed", "8.12")
    assert "webhook-signature" in hook.headers
    (mail,) = mailbox.messages
    assert (mail["to"], mail["from"]) == ("ada@example.org", "switchboard@example.org")
    assert mail["subject"] == f"[Switchboard] {said.format('<!channel> & co')}"
    assert "period 2026-11 (UTC)" in mail.get_content()


async def test_what_cannot_be_told_now_is_tried_again(
    books: asyncpg.Connection,
    judge: Judge,
    running: Running,
    set_rule: SetRule,
    spend: Spend,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    receiver.answer(500)
    async with receiving_mail() as mailbox:
        mailbox.refusals.append(b"451 busy")
        targets = [{"kind": "slack", "to": receiver.url}, {"kind": "email", "to": "ada@example.org"}]
        await set_rule("daily_cost_usd", "5", targets=targets)
        await spend(6 * DOLLAR)
        assert await judge.judge(NOW) == 1
        async with running(smtp_url=mailbox.url):
            await eventually(lambda: _are(books, {"retrying"}))
            await earlier(books, 6)
            await eventually(lambda: _are(books, {"delivered"}))
    assert (len(receiver.posts), len(mailbox.messages)) == (2, 1)


@pytest.mark.parametrize(("kind", "status"), [("slack", 404), ("slack", 410), ("email", 550)])
async def test_a_hook_or_mailbox_that_is_no_more_is_given_up(
    books: asyncpg.Connection,
    running: Running,
    set_rule: SetRule,
    receiver: Receiver,
    eventually: Eventually,
    kind: str,
    status: int,
) -> None:
    async with receiving_mail() as mailbox, running(smtp_url=mailbox.url):
        receiver.answer(status)
        mailbox.refusals.append(b"550 no such user")
        to = receiver.url if kind == "slack" else "gone@example.org"
        await set_rule("p50_s", "5", targets=[{"kind": kind, "to": to}])
        assert await books.fetchval(queries["test_alert"], "acme", "p50-s", "key:1") is not None
        await eventually(lambda: _are(books, {"failed"}))
    assert await books.fetchval("SELECT attempts FROM deliveries") == 1


async def test_a_server_without_starttls_is_given_nothing_unless_told_to(
    books: asyncpg.Connection, running: Running, set_rule: SetRule, eventually: Eventually
) -> None:
    async with receiving_mail() as mailbox, running(smtp_url=f"smtp://127.0.0.1:{mailbox.port}"):
        await set_rule("p50_s", "5", targets=[{"kind": "email", "to": "ada@example.org"}])
        await books.fetchval(queries["test_alert"], "acme", "p50-s", "key:1")
        await eventually(lambda: _are(books, {"retrying"}))
    assert mailbox.messages == []
    assert "STARTTLS" in await books.fetchval("SELECT last_error->>'message' FROM deliveries")


async def test_an_endpoint_that_is_switched_off_is_told_to_those_who_want_to_know(
    books: asyncpg.Connection, running: Running, set_rule: SetRule, receiver: Receiver, eventually: Eventually
) -> None:
    to_us, to_all = ({"kind": "slack", "to": f"http://127.0.0.1:{receiver.port}/{name}"} for name in ("us", "all"))
    await set_rule("endpoint_disabled", targets=[to_us])
    await set_rule("endpoint_disabled", tenant="*", targets=[to_all])
    await set_rule("endpoint_disabled", tenant="other", targets=[{"kind": "slack", "to": receiver.url}])
    made = await books.fetchval(
        queries["create_endpoint"], "acme", "https://example.org/x", "", [], "test", 10, "switchboard"
    )
    endpoint_id = made.partition('"id": "')[2].partition('"')[0]
    async with running():
        await books.execute("SELECT disable_endpoint('acme', $1, 'failing', NULL)", endpoint_id)
        await eventually(lambda: len(receiver.posts) == 2)
    assert {post.path for post in receiver.posts} == {"/us", "/all"}
    rows = await books.fetch("SELECT tenant_id, url FROM deliveries")  # a tenant must not see the operators' hook
    assert {row["url"].rpartition("/")[2]: row["tenant_id"] for row in rows} == {"us": "acme", "all": "*"}
    said = "acme: the endpoint https://example.org/x has failed for days and was disabled"
    assert {post.json["text"] for post in receiver.posts} == {said}


async def _are(books: asyncpg.Connection, wanted: set[str]) -> bool:
    return set(await states(books)) == wanted
