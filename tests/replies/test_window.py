"""Users who last wrote more than a day ago: a template, or the reply waits for them to write."""

import pytest

from tests.delivery.conftest import TENANT, Running
from tests.replies.conftest import Connect, Replies, now_us

DAY_US = 86_400_000_000
OLD = {"at_us": now_us() - DAY_US - 60_000_000}
LONG = "word " * 500


async def test_a_reply_that_is_a_day_late_goes_as_the_channels_template(connect: Connect, running: Running) -> None:
    replies = await connect("whatsapp", template_name="answer", template_language="de")
    delivery = await replies.owe(f"Two\n\nlines {LONG}", **OLD)
    async with running():
        await replies.become("delivered")
    taken = await replies.taken()
    assert {one["template"] for one in taken} == {"answer"}
    assert " ".join(one["text"] for one in taken) == f"Two lines {LONG}".strip()
    assert {part["form"] for part in (await replies.shown(delivery))["parts"]} == {"template"}


async def test_a_template_without_a_parameter_only_calls_the_user_back(connect: Connect, running: Running) -> None:
    replies = await connect("whatsapp", template_name="answer", template_text=False)
    await replies.owe(LONG, **OLD)
    async with running():
        await replies.become("delivered")
    assert [(one["template"], one["text"]) for one in await replies.taken()] == [("answer", "")]


async def test_without_a_template_it_waits_until_the_user_writes_and_others_pass(
    whatsapp: Replies, running: Running
) -> None:
    delivery = await whatsapp.owe("late", **OLD)
    async with running():
        shown = await whatsapp.fault(delivery, "window_closed")
        assert (shown["state"], await whatsapp.texts()) == ("parked", [])
        assert "24 h" in shown["error"]["message"]
        await whatsapp.books.execute(
            "UPDATE messages SET created_at = now() WHERE tenant_id = $1 AND role = 'user'", TENANT
        )
        await whatsapp.pass_time(6)
        await whatsapp.become("delivered")
    assert await whatsapp.texts() == ["late"]


@pytest.mark.parametrize("template", ["answer", None])
async def test_the_providers_word_counts_more_than_our_clock(
    connect: Connect, running: Running, template: str | None
) -> None:
    replies = await connect("whatsapp", **({"template_name": template} if template else {}))
    await replies.misbehave({"kind": "refuse", "code": 131047, "match": "b"})
    delivery = await replies.owe("a" * 4_000 + "\n\n" + "b" * 2_000)
    async with running():
        if template is None:
            await replies.fault(delivery, "window_closed")
        else:
            await replies.become("delivered")
    taken = await replies.taken()
    assert [(one["text"][0], one["template"]) for one in taken] == [("a", None), *[("b", "answer")] * 2][: len(taken)]
    assert len(taken) == (1 if template is None else 3)


@pytest.mark.parametrize(("number", "template"), [("whatsapp:+15550001", "HX1"), ("+15550001", None)])
async def test_twilio_has_whatsapps_window_where_it_is_whatsapp(
    connect: Connect, running: Running, number: str, template: str | None
) -> None:
    """It would take the text all the same, and say an hour later that it failed."""
    replies = await connect("twilio", number=number, content_sid="HX1")
    await replies.owe("late", **OLD)
    async with running():
        await replies.become("delivered")
    [taken] = await replies.taken()
    assert taken["template"] == template
    assert "late" in taken["text"]


async def test_twilio_without_a_template_waits_for_the_user_too(connect: Connect, running: Running) -> None:
    replies = await connect("twilio")
    delivery = await replies.owe("late", **OLD)
    async with running():
        assert (await replies.fault(delivery, "window_closed"))["state"] == "parked"
    assert await replies.texts() == []
