"""WhatsApp as Meta sends it: its signature, every kind of message, batches at every level, users without a phone."""

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.channels.api import Hook, Reading
from shared.channels.whatsapp import WhatsApp, WhatsAppCredentials, WhatsAppSettings
from shared.errors import BadSignature
from tests.channels.conftest import Line
from tests.channels.providers import WhatsApp as Meta

META, ADAPTER = Meta(), WhatsApp()
SETTINGS = WhatsAppSettings(phone_number_id="106540352242922")
CREDENTIALS = WhatsAppCredentials(app_secrets=["an app secret"], verify_token="let me in")
VECTOR = (
    rb'{"object":"whatsapp_business_account","entry":[{"id":"7","changes":[{"field":"messages","value":'
    rb'{"messaging_product":"whatsapp","metadata":{"display_phone_number":"15550001","phone_number_id":'
    rb'"106540352242922"},"contacts":[{"profile":{"name":"J\u00f6rg"},"wa_id":"4915550100"}],"messages":[{"from":'
    rb'"4915550100","id":"wamid.VECTOR","timestamp":"1750000000","type":"text","text":{"body":'
    rb'"Gr\u00fc\u00dfe \ud83d\ude00 1\/2"}}]}}]}]}'
)
"""As Meta writes it: what is not ASCII escaped, and slashes too. Signed by `openssl dgst -hmac`."""
SIGNATURE = "sha256=492dbaa90f42b8b4e8f54f8be471ff050b836ab047626bb535c1ca691b99dc54"
OF_THE_SAME_JSON_WRITTEN_ANEW = "sha256=c6c0b4435efc36bc2be1aa60515945eecc5eb04700bbcdd11e70061056a1987d"


def hook(body: Any, **headers: str) -> Hook:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Hook(method="POST", url="http://x/", headers=headers, query={}, body=raw, at_s=0.0)


def read(*messages: Any, settings: WhatsAppSettings = SETTINGS, **value: Any) -> Reading:
    return ADAPTER.read(hook(META.batch([*messages], **value)), settings)


def said(reading: Reading) -> list[str]:
    assert reading.kept == []
    return [message.text for message in reading.messages]


def test_metas_signature_is_of_the_bytes_it_sent() -> None:
    ADAPTER.verify(hook(VECTOR, **{"x-hub-signature-256": SIGNATURE}), SETTINGS, CREDENTIALS)
    [message] = ADAPTER.read(hook(VECTOR), SETTINGS).messages
    assert message.text == "Grüße 😀 1/2"
    assert message.details["name"] == "Jörg"
    with pytest.raises(BadSignature):
        ADAPTER.verify(hook(VECTOR, **{"x-hub-signature-256": OF_THE_SAME_JSON_WRITTEN_ANEW}), SETTINGS, CREDENTIALS)


def test_any_of_several_app_secrets_signs() -> None:
    both = WhatsAppCredentials(app_secrets=["the new one", "an app secret"], verify_token="x")
    ADAPTER.verify(hook(VECTOR, **{"x-hub-signature-256": SIGNATURE}), SETTINGS, both)


FROM = {"from": "16505551234", "id": "wamid.1", "timestamp": "1749416383"}
IMAGE = {"id": "275", "mime_type": "image/jpeg", "sha256": "81d3"}
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"type": "text", "text": {"body": "Hello"}}, "Hello"),
    "button": ({"type": "button", "button": {"text": "No", "payload": "no-1"}}, "No"),
    "button reply": (
        {"type": "interactive", "interactive": {"type": "button_reply", "button_reply": {"id": "b1", "title": "Yes"}}},
        "Yes",
    ),
    "list reply": (
        {
            "type": "interactive",
            "interactive": {"type": "list_reply", "list_reply": {"id": "l1", "title": "Large", "description": "43 cm"}},
        },
        "Large",
    ),
    "form": (
        {
            "type": "interactive",
            "interactive": {
                "type": "nfm_reply",
                "nfm_reply": {"name": "flow", "body": "Sent", "response_json": '{"a":1}'},
            },
        },
        '[form] {"a":1}',
    ),
    "location": (
        {"type": "location", "location": {"latitude": 52.5, "longitude": 13.4, "name": "Office", "address": "Main St"}},
        "[location] Office, Main St (52.5, 13.4)",
    ),
    "location without a type": ({"location": {"latitude": "52.5", "longitude": "13.4"}}, "[location] 52.5, 13.4"),
    "contacts": (
        {"contacts": [{"name": {"formatted_name": "Ada L"}, "phones": [{"phone": "+1", "type": "HOME"}]}]},
        "[contact] Ada L, +1",
    ),
    "image": (
        {"type": "image", "image": {**IMAGE, "caption": "Is this it?"}},
        "[image that you cannot see] Is this it?",
    ),
    "voice message": (
        {"type": "audio", "audio": {"id": "1", "mime_type": "audio/ogg; codecs=opus", "voice": True}},
        "[voice message that you cannot hear]",
    ),
    "audio": (
        {"type": "audio", "audio": {"id": "1", "mime_type": "audio/mpeg", "voice": False}},
        "[audio that you cannot hear]",
    ),
    "video": ({"type": "video", "video": {"id": "1", "mime_type": "video/mp4"}}, "[video that you cannot see]"),
    "document": (
        {"type": "document", "document": {"id": "1", "filename": "bill.pdf", "caption": "Look"}},
        "[document that you cannot open: bill.pdf] Look",
    ),
    "sticker": (
        {"type": "sticker", "sticker": {"id": "1", "animated": False, "mime_type": "image/webp"}},
        "[sticker that you cannot see]",
    ),
    "order": (
        {
            "type": "order",
            "order": {
                "catalog_id": "c",
                "product_items": [
                    {"product_retailer_id": "sku-1", "quantity": 2, "item_price": 3.5, "currency": "USD"}
                ],
                "text": "Please quickly",
            },
        },
        "[order] 2 × sku-1 at 3.5 USD\nPlease quickly",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_message_becomes_words(kind: str) -> None:
    message, words = KINDS[kind]
    assert said(read({**FROM, **message})) == [words]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ('{"day":"Mon","flow_token":"t-1"}', '[form] {"day":"Mon"}'),
        ("no JSON", "[form] no JSON"),
        ("[1]", "[form] [1]"),
    ],
)
def test_a_form_is_told_without_its_token(answers: str, words: str) -> None:
    reply = {"type": "nfm_reply", "nfm_reply": {"name": "flow", "response_json": answers}}
    [message] = read({**FROM, "type": "interactive", "interactive": reply}).messages
    assert message.text == words
    assert message.details["form"].get("token") == ("t-1" if "token" in answers else None)


def test_media_are_named_for_whoever_fetches_them() -> None:
    [message] = read({**FROM, "type": "image", "image": IMAGE}).messages
    assert message.details["media"] == {"kind": "image", **IMAGE}


def test_what_a_message_refers_to_is_told() -> None:
    referral = {"source_url": "https://fb.me/ad", "source_id": "1", "source_type": "ad", "headline": "H", "body": "B"}
    context = {"from": "15550783881", "id": "wamid.0", "referred_product": {"product_retailer_id": "sku"}}
    [message] = read({**META.text("Price?"), "context": context, "referral": referral}).messages
    assert message.details["quoted"] == "wamid.0"
    assert message.details["product"] == {"product_retailer_id": "sku"}
    assert message.details["referral"] == referral


NOT_ANSWERED: dict[str, dict[str, Any]] = {
    "system": {"type": "system", "system": {"type": "user_changed_number", "body": "Ada changed", "new_wa_id": "1"}},
    "unsupported": {"type": "unsupported", "errors": [{"code": 131051, "title": "Unsupported message type"}]},
    "unknown": {"type": "unknown", "errors": [{"code": 130501}]},
    "edit": {"type": "edit", "edit": {"message": {}}},
    "revoke": {"type": "revoke", "revoke": {"original_message_id": "wamid.0"}},
    "request_welcome": {"type": "request_welcome"},
    "reaction": {"type": "reaction", "reaction": {"message_id": "wamid.0", "emoji": "👍"}},
    "untyped": {"something": 1},
    "empty": {"type": "text", "text": {"body": " \n"}},
}


@pytest.mark.parametrize("reason", NOT_ANSWERED)
def test_what_is_no_message_to_answer_is_kept(reason: str) -> None:
    reading = read({**FROM, **NOT_ANSWERED[reason]})
    assert [kept.reason for kept in reading.kept] == [reason]
    assert reading.messages == []


def test_reactions_are_answered_where_the_channel_wants_it_and_taken_back_ones_never() -> None:
    wanted = WhatsAppSettings(phone_number_id="106540352242922", answer_reactions=True)
    reaction = {**FROM, "type": "reaction", "reaction": {"message_id": "wamid.0", "emoji": "👍"}}
    assert said(read(reaction, settings=wanted)) == ["[reaction] 👍"]
    reaction["reaction"] = {"message_id": "wamid.0"}
    assert [kept.reason for kept in read(reaction, settings=wanted).kept] == ["empty"]


MALFORMED: dict[str, Any] = {
    "no id": {**META.text("x"), "id": None},
    "an id of spaces": {**META.text("x"), "id": "a b"},
    "nobody": {**META.text("x"), "from": None},
    "text that is a number": {**META.text("x"), "text": {"body": 1}},
    "text that is none": {**META.text("x"), "text": None},
    "type that is none": {**META.text("x"), "type": 5},
    "a media without id": {**FROM, "type": "image", "image": {}},
    "a strange interactive": {**FROM, "type": "interactive", "interactive": {"type": "hologram", "hologram": {}}},
    "context that is none": {**META.text("x"), "context": 7},
    "not an object": "hello",
    "null": None,
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_message_stops_none_of_its_batch(fault: str) -> None:
    reading = read(META.text("before"), MALFORMED[fault], META.text("after"))
    assert [message.text for message in reading.messages] == ["before", "after"]
    assert [kept.reason for kept in reading.kept] == ["malformed"]


@pytest.mark.parametrize("entries", [None, 7, [7], [{}], [{"changes": 7}], [{"changes": [7]}], [{"changes": [{}]}]])
def test_whatever_stands_at_any_level_nothing_breaks(entries: Any) -> None:
    reading = ADAPTER.read(
        hook({"entry": [*(entries or []), *META.batch([META.text("good")])["entry"]]})
        if isinstance(entries, list)
        else hook({"entry": entries}),
        SETTINGS,
    )
    assert [message.text for message in reading.messages] == (["good"] if isinstance(entries, list) else [])
    assert len(reading.kept) == (entries not in (None, [{}]))


def test_every_message_of_every_change_of_every_entry_is_read() -> None:
    body = META.batch([META.text("1"), META.text("2")], [META.text("3")])
    body["entry"][0]["changes"].append(META.change(messages=[META.text("2½")]))
    assert said(ADAPTER.read(hook(body), SETTINGS)) == ["1", "2", "2½", "3"]


def test_what_came_for_another_number_is_kept_and_not_answered() -> None:
    body = META.batch([META.text("ours")])
    body["entry"].append({"id": "W", "changes": [META.change(number="999", messages=[META.text("theirs")])]})
    reading = ADAPTER.read(hook(body), SETTINGS)
    assert [message.text for message in reading.messages] == ["ours"]
    assert [kept.reason for kept in reading.kept] == ["foreign"]
    assert "theirs" in str(reading.kept[0].payload)


def test_other_fields_are_kept_under_their_name() -> None:
    body = {"entry": [{"changes": [{"field": "account_update", "value": {"event": "BAN"}}]}]}
    [kept] = ADAPTER.read(hook(body), SETTINGS).kept
    assert (kept.reason, kept.payload["value"]) == ("field:account_update", {"event": "BAN"})


BSUID = "US.13491208655302741918"


def test_a_user_without_a_phone_number_is_known_by_its_business_scoped_id() -> None:
    contact = {"profile": {"name": "Ada", "username": "ada"}, "user_id": BSUID}
    message = {**META.text("hi"), "from_user_id": BSUID}
    del message["from"]
    [found] = read(message, contacts=[contact]).messages
    assert (found.user, found.conversation) == (BSUID, BSUID)
    assert found.details["recipient"] == BSUID
    assert "to" not in found.details
    assert (found.details["name"], found.details["username"]) == ("Ada", "ada")


def test_a_user_that_hides_its_phone_later_stays_the_same_user() -> None:
    contact = {"profile": {"name": "Ada"}, "wa_id": "16505551", "user_id": BSUID}
    with_phone = read(META.text("hi"), contacts=[contact]).messages[0]
    hidden = {**META.text("hi"), "from_user_id": BSUID}
    del hidden["from"]
    without = read(hidden, contacts=[{"user_id": BSUID}]).messages[0]
    assert with_phone.user == without.user == BSUID
    assert with_phone.details["to"] == "16505551"


def test_of_several_people_in_a_batch_nobody_gets_anothers_name() -> None:
    people = [{"profile": {"name": name}, "wa_id": f"1650555{n}"} for n, name in ((1, "Ada"), (2, "Bob"))]
    found = read(META.text("a", user="2"), META.text("b", user="1"), META.text("c", user="3"), contacts=people).messages
    assert [message.details.get("name") for message in found] == ["Bob", "Ada", None]


def test_statuses_are_read_with_what_they_echo() -> None:
    failed = {
        "id": "wamid.9",
        "status": "failed",
        "timestamp": 1603086313,
        "recipient_id": "16315551234",
        "errors": [{"code": 131014, "title": "Request for url failed"}],
        "biz_opaque_callback_data": "delivery-1",
    }
    strange = {"id": "wamid.9", "status": "captured"}
    reading = read(statuses=[{**failed, "status": "sent", "timestamp": "1603086312"}, failed, strange, 7])
    sent, last = reading.statuses
    assert (sent.state, sent.at_us) == ("sent", 1603086312_000000)
    assert (last.state, last.message_id, last.recipient) == ("failed", "wamid.9", "16315551234")
    assert last.error == failed["errors"][0]
    assert last.details == {"biz_opaque_callback_data": "delivery-1"}
    assert [kept.reason for kept in reading.kept] == ["status:captured", "malformed"]


@pytest.mark.parametrize("state", ["failed", "captured", "pending"])
def test_what_becomes_of_a_payment_is_not_what_becomes_of_its_message(state: str) -> None:
    payment = {"id": "wamid.9", "type": "payment", "status": state, "payment": {"reference_id": "order-7"}}
    reading = read(statuses=[payment, {"id": "wamid.9", "type": "message", "status": "read"}])
    assert [status.state for status in reading.statuses] == ["read"]
    assert [kept.reason for kept in reading.kept] == [f"status:payment:{state}"]


def test_half_an_emoji_is_read_and_costs_only_itself() -> None:
    body = json.dumps(META.batch([META.text("cut \ud83d here"), META.text("whole 😀")])).encode()
    assert said(ADAPTER.read(hook(body), SETTINGS)) == ["cut \ufffd here", "whole 😀"]


# -- over HTTP --------------------------------------------------------------------------------------------------------


async def test_meta_verifies_the_url(whatsapp: Line) -> None:
    good = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "let me in"}
    response = await whatsapp.client.get(whatsapp.path, params=good)
    assert (response.status_code, response.text) == (200, "1158201444")
    assert response.headers["content-type"].startswith("text/plain")
    for wrong in ({"hub.verify_token": "guess"}, {"hub.mode": "unsubscribe"}, {"hub.verify_token": ""}):
        refused = await whatsapp.client.get(whatsapp.path, params={**good, **wrong})
        assert refused.status_code == 403, wrong
        assert "1158201444" not in refused.text


async def test_a_batch_is_queued_in_the_order_it_was_said(whatsapp: Line, queued) -> None:
    meta = whatsapp.provider
    await whatsapp.deliver(meta.batch([meta.text("1"), meta.text("2", user="2")], [meta.text("3"), meta.text("4")]))
    turns = await queued()
    assert [turn.message for turn in turns] == ["1", "2", "3", "4"]
    assert turns[0].conversation_id == turns[2].conversation_id != turns[1].conversation_id


async def test_statuses_alone_make_no_job(whatsapp: Line, queued, inbox) -> None:
    status = {"id": "wamid.9", "status": "read", "timestamp": "1603086313", "recipient_id": "1"}
    body = {"entry": [{"changes": [META.change(statuses=[status])]}]}
    assert (await whatsapp.deliver(body)).status_code == 200
    assert await queued() == []
    [row] = await inbox()
    assert (row["message_id"], row["state"], row["channel"]) == ("wamid.9", "read", whatsapp.channel_id)


async def test_what_came_for_an_unknown_number_is_acknowledged_and_logged(whatsapp: Line, queued, inbox) -> None:
    with capture_logs() as lines:
        response = await whatsapp.deliver(
            {"entry": [{"changes": [META.change(number="999", messages=[META.text("x")])]}]}
        )
    assert (response.status_code, await queued()) == (200, [])
    assert [row["reason"] for row in await inbox()] == ["foreign"]
    kept = [line for line in lines if line["event"] == "inbound_kept"]
    assert [(line["reason"], line["log_level"]) for line in kept] == [("foreign", "warning")]
    assert "x" not in {*map(str, kept[0].values())}, "no message text in a log"
