"""What every channel keeps when it sends, and what is WhatsApp's own."""

import pytest

from tests.channels.providers import PROVIDERS
from tests.delivery.conftest import Running
from tests.replies.conftest import DETAILS, Connect, Replies

every = pytest.mark.parametrize("kind", sorted(PROVIDERS))
LIMITS = {"whatsapp": 4_096, "telegram": 4_096, "twilio": 1_600, "slack": 4_000}
REFUSED: dict[str, tuple[int, int | str]] = {
    "whatsapp": (400, 131026),
    "telegram": (403, 403),
    "twilio": (400, 21610),
    "slack": (200, "not_in_channel"),
}
PEERS = {"whatsapp": "16505551", "telegram": "771", "twilio": "whatsapp:+16505551", "slack": "C1"}


@every
async def test_a_reply_goes_to_whoever_asked_and_is_known_by_the_providers_id(
    connect: Connect, running: Running, kind: str
) -> None:
    replies = await connect(kind)
    delivery = await replies.owe("café 😀 & <b>")
    async with running():
        await replies.become("delivered")
    [taken] = await replies.taken()
    text = "café 😀 &amp; &lt;b&gt;" if kind == "slack" else "café 😀 & <b>"
    assert (taken["provider"], taken["to"], taken["text"]) == (kind, PEERS[kind], text)
    shown = await replies.shown(delivery)
    [part] = shown["parts"]
    assert (shown["kind"], part["state"], part["message_id"], part["resent"]) == ("channel", "sent", taken["id"], 0)
    assert [entry["outcome"] for entry in shown["log"]] == ["delivered"]


@every
async def test_a_long_reply_is_several_messages_in_order(connect: Connect, running: Running, kind: str) -> None:
    replies = await connect(kind, per_second=100)
    text = " ".join(f"word{n:05}" for n in range(LIMITS[kind] // 4))
    delivery = await replies.owe(text)
    async with running():
        await replies.become("delivered")
    texts = await replies.texts()
    assert len(texts) == 3
    assert " ".join(texts) == text
    parts = (await replies.shown(delivery))["parts"]
    assert [part["message_id"] for part in parts] == [one["id"] for one in await replies.taken()]


@every
async def test_a_refusal_for_good_fails_and_lets_the_next_reply_go(
    connect: Connect, running: Running, kind: str
) -> None:
    replies = await connect(kind)
    codes = {
        "whatsapp": (400, 131026),
        "telegram": (403, 403),
        "twilio": (400, 21610),
        "slack": (200, "not_in_channel"),
    }
    status, code = codes[kind]
    await replies.misbehave({"kind": "refuse", "status": status, "code": code})
    await replies.owe("first")
    await replies.owe("second")
    async with running():
        await replies.become("failed", "delivered")
    assert await replies.texts() == ["second"]
    assert await replies.attempts() == [("failed", str(code)), ("delivered", None)]
    assert await replies.books.fetchval("SELECT count(*) FROM receivers WHERE failures > 0") == 0


@every
async def test_being_too_fast_puts_off_and_keeps_the_order(connect: Connect, running: Running, kind: str) -> None:
    replies = await connect(kind)
    codes = {"whatsapp": (400, 131056), "telegram": (429, 429), "twilio": (429, 20429), "slack": (429, "ratelimited")}
    status, code = codes[kind]
    await replies.misbehave({"kind": "refuse", "status": status, "code": code, "retry_after_s": 7})
    head, *_ = [await replies.owe(text) for text in ("first", "second", "third")]
    async with running():
        await replies.fault(head, str(code))
        assert await replies.states() == ["pending"] * 3
        assert await replies.texts() == []
        await replies.pass_time(7.5)
        await replies.become("delivered", "delivered", "delivered")
    assert await replies.texts() == ["first", "second", "third"]
    assert (await replies.attempts())[0] == ("put_off", str(code))
    assert await replies.books.fetchval("SELECT max(failures) FROM deliveries") == 0


@every
async def test_a_channel_whose_token_is_refused_is_paused_whole_until_it_is_changed(
    connect: Connect, running: Running, kind: str
) -> None:
    replies = await connect(kind)
    codes = {"whatsapp": (401, 190), "telegram": (401, 401), "twilio": (401, 20003), "slack": (200, "invalid_auth")}
    status, code = codes[kind]
    await replies.misbehave({"kind": "refuse", "status": status, "code": code})
    delivery = await replies.owe("first")
    async with running():
        await replies.fault(delivery, str(code))
        await replies.owe("other", conversation="c2", to={"to": "2", "chat_id": "2", "channel": "C2", "from": "+2"})
        await replies.books.execute("UPDATE deliveries SET due_at = now()")
        assert (await replies.shown(delivery))["paused"]["code"] == str(code)
        assert await replies.texts() == []
        await replies.books.execute("UPDATE channels SET version = version + 1")
        await replies.become("delivered", "delivered")
    assert sorted(await replies.texts()) == ["first", "other"]
    assert (await replies.attempts())[0] == ("put_off", str(code))


@every
async def test_a_provider_that_is_down_is_tried_again_after_a_while(
    connect: Connect, running: Running, kind: str
) -> None:
    replies = await connect(kind)
    codes = {"whatsapp": (500, 131000), "telegram": (500, 500), "twilio": (503, 20503), "slack": (200, "fatal_error")}
    status, code = codes[kind]
    await replies.misbehave({"kind": "refuse", "status": status, "code": code})
    await replies.owe("first")
    async with running():
        await replies.become("retrying")
        await replies.pass_time(6)
        await replies.become("delivered")
    assert await replies.attempts() == [("failed", str(code)), ("delivered", None)]


def test_every_kind_is_tried() -> None:
    assert set(DETAILS) == set(PEERS) == set(LIMITS) == set(PROVIDERS)


async def test_whatsapp_quotes_the_message_that_is_answered_in_the_first_part_only(
    whatsapp: Replies, running: Running
) -> None:
    delivery = await whatsapp.owe("word " * 1_000)
    async with running():
        await whatsapp.become("delivered")
    first, second = await whatsapp.taken()
    assert (first["quoted"], second["quoted"]) == ("wamid.asked", None)
    assert (first["reference"], second["reference"]) == (f"{delivery}:1:1", f"{delivery}:2:1")


@pytest.mark.parametrize(
    ("state", "code", "said"),
    [
        ("dead", "upstream", "something went wrong"),
        ("expired", "expired", "very busy"),
        ("rejected", "rate_limited", "writing faster"),
        ("rejected", "budget_exhausted", "cannot answer you at the moment"),
    ],
)
async def test_a_user_whose_message_has_no_answer_is_told_so(
    whatsapp: Replies, running: Running, state: str, code: str, said: str
) -> None:
    await whatsapp.owe(None, state=state, error={"code": code, "message": "…"}, payload={})
    async with running():
        await whatsapp.become("delivered")
    [text] = await whatsapp.texts()
    assert said in text


async def test_a_channel_may_say_nothing_or_something_else(connect: Connect, running: Running) -> None:
    replies = await connect("whatsapp", failure_text="none", refusal_text="Bitte später.")
    await replies.owe(None, state="dead", error={"code": "x", "message": "…"}, payload={})
    await replies.owe(None, state="rejected", error={"code": "x", "message": "…"}, payload={})
    await replies.owe(None, state="cancelled", error={"code": "x", "message": "…"}, payload={})
    async with running():
        await replies.become("delivered", "delivered", "delivered")
    assert await replies.texts() == ["Bitte später."]


async def test_what_cannot_be_sent_at_all_fails_with_the_reason(whatsapp: Replies, running: Running) -> None:
    nowhere = await whatsapp.owe("to nobody", to={"to": None}, conversation="c1")
    async with running():
        await whatsapp.become("failed")
        await whatsapp.books.execute("DELETE FROM channels")
        removed = await whatsapp.owe("to no channel", conversation="c2")
        await whatsapp.become("failed", "failed")
    assert (await whatsapp.shown(nowhere))["error"]["code"] == "unsendable"
    assert (await whatsapp.shown(removed))["error"]["code"] == "channel_removed"


async def test_credentials_that_cannot_be_read_or_are_missing_pause_the_channel(
    connect: Connect, running: Running
) -> None:
    replies = await connect("whatsapp", credentials={"app_secrets": ["x"], "verify_token": "x"})
    delivery = await replies.owe("hello")
    async with running():
        assert (await replies.fault(delivery, "no_credential"))["paused"]["code"] == "no_credential"
        await replies.books.execute("UPDATE channels SET sealed = 'x.y.z'")
        await replies.fault(delivery, "channel_unreadable")
    assert await replies.texts() == []


async def test_a_process_of_the_version_before_is_given_no_replies(whatsapp: Replies) -> None:
    await whatsapp.owe("hello")
    claimed = await whatsapp.books.fetch("SELECT claim_deliveries(9, 9, 9, 9)")
    assert claimed == []
    assert await whatsapp.states() == ["pending"]
