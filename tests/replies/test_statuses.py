"""What providers tell of messages afterwards: recorded, shown, and believed when they say that it failed."""

import json

import pytest

from shared.channels.api import Hook, Status
from shared.channels.twilio import Twilio, TwilioSettings
from sql import queries
from tests.delivery.conftest import TENANT, Running
from tests.replies.conftest import Connect, Replies


async def test_every_status_of_a_message_is_shown_with_its_delivery(whatsapp: Replies, running: Running) -> None:
    delivery = await whatsapp.owe("hello")
    async with running():
        await whatsapp.become("delivered")
    [taken] = await whatsapp.taken()
    for at_us, state in ((3_000_000, "read"), (1_000_000, "sent"), (2_000_000, "delivered")):
        await whatsapp.told(taken["id"], state, at_us=at_us)
    [part] = (await whatsapp.shown(delivery))["parts"]
    assert part["status"] == "read"
    assert [one["state"] for one in part["statuses"]] == ["sent", "delivered", "read"]


async def test_a_status_that_comes_before_our_own_note_is_not_lost(whatsapp: Replies, running: Running) -> None:
    delivery = await whatsapp.owe("hello")
    await whatsapp.told("its id, once it is known", "delivered")
    async with running():
        await whatsapp.become("delivered")
    [taken] = await whatsapp.taken()
    await whatsapp.books.execute("UPDATE channel_statuses SET message_id = $1", taken["id"])
    assert (await whatsapp.shown(delivery))["parts"][0]["status"] == "delivered"


ERROR = {"code": 131026, "title": "Message undeliverable"}


@pytest.mark.parametrize("early", [False, True])
async def test_what_the_provider_took_and_could_not_deliver_has_failed(
    whatsapp: Replies, running: Running, early: bool
) -> None:
    await whatsapp.misbehave({"kind": "hang", "taken": True} if early else {"kind": "status_first"})
    delivery = await whatsapp.owe("hello")
    if early:
        async with running(delivery_timeout_s=1.0):
            await whatsapp.fault(delivery, "cut")
            [taken] = await whatsapp.taken()
            await whatsapp.told(taken["id"], "failed", reference=taken["reference"], error=ERROR)
            await whatsapp.pass_time(31)
            await whatsapp.become("failed")
    else:
        async with running():
            await whatsapp.become("delivered")
        [taken] = await whatsapp.taken()
        await whatsapp.told(taken["id"], "failed", error=ERROR)
    shown = await whatsapp.shown(delivery)
    assert (shown["state"], shown["error"]) == ("failed", {"code": "131026", "message": "Message undeliverable"})
    assert shown["parts"][0]["status"] == "failed"


async def test_a_replay_sends_what_failed_and_nothing_else(whatsapp: Replies, running: Running) -> None:
    delivery = await whatsapp.owe("a" * 4_000 + "\n\n" + "b" * 4_000)
    async with running():
        await whatsapp.become("delivered")
        first, _ = await whatsapp.taken()
        await whatsapp.told(first["id"], "failed", error=ERROR)
        await whatsapp.become("failed")
        assert await whatsapp.books.fetchval(queries["replay_delivery"], TENANT, delivery) == "queued"
        await whatsapp.become("delivered")
        assert [text[0] for text in await whatsapp.texts()] == ["a", "b", "a"]
        assert await whatsapp.books.fetchval(queries["replay_delivery"], TENANT, delivery) == "queued"
        await whatsapp.become("delivered")
    assert [text[0] for text in await whatsapp.texts()] == ["a", "b", "a", "a", "b"]


async def test_twilio_tells_statuses_at_a_url_that_holds_our_reference(connect: Connect, running: Running) -> None:
    replies = await connect("twilio")
    delivery = await replies.owe("hello")
    async with running():
        await replies.become("delivered")
    [taken] = await replies.taken()
    assert taken["reference"].replace("%3A", ":") == f"{delivery}:1:1"
    form = f"MessageSid={taken['id']}&MessageStatus=delivered&AccountSid=AC1&To=%2B1"
    hook = Hook(
        method="POST",
        url="",
        headers={},
        query={"reference": f"{delivery}:1:1"},
        body=form.encode(),
        at_s=0,
    )
    [status] = Twilio().read(hook, TwilioSettings(account_sid="AC1", number="+1")).statuses
    assert status == Status(message_id=taken["id"], state="delivered", recipient="+1", reference=f"{delivery}:1:1")


async def test_no_other_tenant_sees_or_settles_it(whatsapp: Replies, running: Running) -> None:
    delivery = await whatsapp.owe("hello")
    async with running():
        await whatsapp.become("delivered")
    [taken] = await whatsapp.taken()
    row = {"channel": whatsapp.channel_id, "message_id": taken["id"], "state": "failed", "received_us": 1}
    await whatsapp.books.fetchval(queries["note_inbound"], "other", json.dumps([row]))
    shown = await whatsapp.shown(delivery)
    assert (shown["state"], shown["parts"][0]["status"]) == ("delivered", None)
    assert await whatsapp.books.fetchval(queries["delivery_detail"], "other", delivery) is None
