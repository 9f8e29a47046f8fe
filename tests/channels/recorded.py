"""What providers really send, field for field, as conversations: each request, and what the agent hears of whom by it.

The shapes are those of Meta's public Postman collection and of its newer notes (business-scoped ids), of Twilio's list
of webhook parameters, of Telegram's Bot API and of Slack's Events API; the people and the words are ours. A
conversation says nothing twice, so that a message that was sent again can be told from the next one.
"""

import json
from dataclasses import dataclass
from typing import Any

from tests.channels.providers import PROVIDERS

WABA, NUMBER = "8856996819413533", PROVIDERS["whatsapp"].settings["phone_number_id"]
ADA, CLEO, BEN = "16315551234", "4915550100", "US.13491208655302741918"
"""Ben has no phone number that we may know."""
SLOW = "held up"
"""In one message of each provider: for faults that strike it."""


@dataclass(frozen=True)
class Post:
    """One request of a provider."""

    content: Any
    said: tuple[tuple[str, str], ...] = ()
    """Whom the replies go to, and what the agent hears, in order. None for what is no message to answer."""


def posts(kind: str) -> list[Post]:
    return {"whatsapp": _whatsapp, "twilio": _twilio, "telegram": _telegram, "slack": _slack}[kind]()


def heard(kind: str) -> dict[str, list[str]]:
    """By whom the reply goes to."""
    found: dict[str, list[str]] = {}
    for post in posts(kind):
        for peer, text in post.said:
            found.setdefault(peer, []).append(text)
    return found


# -- WhatsApp ---------------------------------------------------------------------------------------------------------


def _value(*, number: str = NUMBER, **content: Any) -> dict[str, Any]:
    metadata = {"display_phone_number": "16505553333", "phone_number_id": number}
    return {"field": "messages", "value": {"messaging_product": "whatsapp", "metadata": metadata, **content}}


def _meta(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"object": "whatsapp_business_account", "entry": [{"id": WABA, "changes": [*changes]}]}


def _contact(user: str) -> dict[str, Any]:
    if user == BEN:
        profile = {"name": "Ben Okri", "username": "ben.okri"}
        return {"profile": profile, "user_id": BEN, "parent_user_id": "US.ENT.11815799212886844830"}
    return {"profile": {"name": "Kerry Fisher"}, "wa_id": user}


def _from(user: str, n: int, **content: Any) -> dict[str, Any]:
    sender = {"from_user_id": BEN} if user == BEN else {"from": user}
    return {**sender, "id": f"wamid.HBgLMTYzMTU1NTEyMzQ{n:04}", "timestamp": str(1_795_200_000 + n), **content}


def _said(*messages: dict[str, Any]) -> dict[str, Any]:
    users = dict.fromkeys(message.get("from_user_id") or message["from"] for message in messages)
    return _value(contacts=[_contact(user) for user in users], messages=[*messages])


def _media(kind: str, **more: Any) -> dict[str, Any]:
    sha256 = "81d3bd8a8db4868c9520ed47186e8b7c5789e61ff79f7f834be6950b808a90d3"
    return {"type": kind, kind: {"sha256": sha256, "id": "2754859441498128", **more}}


def _status(state: str, n: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"wamid.gBGGFlCGg0cvAglAxydbAoy{n}",
        "status": state,
        "timestamp": "1795200000",
        "recipient_id": ADA,
        **more,
    }


_CONVERSATION = {
    "id": "7270432eae37498234f4444b35ffc5",
    "expiration_timestamp": 1795286400,
    "origin": {"type": "service"},
}
_PRICING = {"billable": True, "pricing_model": "CBP", "category": "service"}


def _whatsapp() -> list[Post]:
    return [_at_all_levels(), *_media_and_places(), _statuses(), _choices(), _not_to_answer(), _shop()]


def _at_all_levels() -> Post:
    """Entries with changes with messages, of three people, and statuses among them."""
    body = _meta(
        _said(
            _from(ADA, 1, text={"body": "Hello, this is an answer: café 😀 a/b"}, type="text"),
            _from(BEN, 2, text={"body": "I have no number"}, type="text"),
        ),
        _value(statuses=[_status("read", 1, conversation=_CONVERSATION, pricing=_PRICING)]),
        _said(_from(ADA, 3, **_media("image", caption=f"This was {SLOW}", mime_type="image/jpeg"))),
    )
    identity = {"acknowledged": True, "created_timestamp": 1602532300000, "hash": "Sjvjlx8G6Z0="}
    last = _from(CLEO, 4, identity=identity, text={"body": "Hi from new number 3601"}, type="text")
    body["entry"].append(_meta(_said(last))["entry"][0])
    said = (
        (ADA, "Hello, this is an answer: café 😀 a/b"),
        (BEN, "I have no number"),
        (ADA, f"[image that you cannot see] This was {SLOW}"),
        (CLEO, "Hi from new number 3601"),
    )
    return Post(body, said)


def _media_and_places() -> list[Post]:
    place = {"latitude": 37.4847, "longitude": -122.1473, "name": "Main Office", "address": "1 Main Street"}
    person = {
        "addresses": [
            {
                "city": "Berlin",
                "country": "Germany",
                "country_code": "de",
                "state": "BE",
                "street": "Weg 1",
                "type": "HOME",
                "zip": "10115",
            }
        ],
        "birthday": "1990-01-01",
        "emails": [{"email": "kim@example.org", "type": "WORK"}],
        "name": {
            "formatted_name": "Kim Lee",
            "first_name": "Kim",
            "last_name": "Lee",
            "middle_name": "",
            "prefix": "",
            "suffix": "",
        },
        "org": {"company": "Example", "department": "Sales", "title": "Head"},
        "phones": [{"phone": "+49 155 50101", "wa_id": "4915550101", "type": "HOME"}],
        "urls": [{"url": "https://example.org", "type": "WORK"}],
    }
    forwarded = {"context": {"forwarded": True}}
    told: list[tuple[str, dict[str, Any], str]] = [
        (ADA, _media("sticker", animated=False, mime_type="image/webp"), "[sticker that you cannot see]"),
        (BEN, _media("audio", mime_type="audio/ogg; codecs=opus", voice=True), "[voice message that you cannot hear]"),
        (BEN, _media("audio", mime_type="audio/mpeg", voice=False) | forwarded, "[audio that you cannot hear]"),
        (
            CLEO,
            _media("document", caption="My bill", filename="bill.pdf", mime_type="application/pdf"),
            "[document that you cannot open: bill.pdf] My bill",
        ),
        (CLEO, _media("video", mime_type="video/mp4") | forwarded, "[video that you cannot see]"),
        (ADA, {"location": place}, "[location] Main Office, 1 Main Street (37.4847, -122.1473)"),
        (ADA, {"contacts": [person]}, "[contact] Kim Lee, +49 155 50101"),
    ]
    return [
        Post(_meta(_said(_from(user, 10 + n, **more))), ((user, text),)) for n, (user, more, text) in enumerate(told)
    ]


def _statuses() -> Post:
    """Of messages that are none of ours, and of a payment that has failed: its message has not."""
    fault = {"code": 131014, "title": "Request for url https://URL.jpg failed with error: 404 (Not Found)"}
    paid = {"from": ADA, "type": "payment", "payment": {"reference_id": "reference-id-from-order-details-msg"}}
    states = [
        _status("sent", 1, conversation=_CONVERSATION, pricing=_PRICING),
        _status("delivered", 1, conversation=_CONVERSATION, pricing=_PRICING),
        _status("failed", 2, errors=[fault]),
        _status("failed", 3, **paid),
    ]
    return Post(_meta(_value(statuses=states)))


def _choices() -> Post:
    context = {"context": {"from": "16505553333", "id": "wamid.gBGGFlCGg0cvAgkLFm4e9tICiTI"}}
    answers = '{"comment":"fine","rating":"4","flow_token":"AQAAAAACS5FpgQ_cAAAAAD0QI3s."}'
    button = {"type": "button", "button": {"text": "No", "payload": "No-Button-Payload"}}
    reply = {"type": "button_reply", "button_reply": {"id": "unique-button-identifier", "title": "Yes"}}
    row = {"type": "list_reply", "list_reply": {"id": "row-1", "title": "Large", "description": "43 cm"}}
    form = {"type": "nfm_reply", "nfm_reply": {"name": "flow", "body": "Sent", "response_json": answers}}
    return Post(
        _meta(
            _said(
                _from(ADA, 20, **context, **button),
                _from(ADA, 21, **context, type="interactive", interactive=reply),
                _from(CLEO, 22, **context, type="interactive", interactive=row),
                _from(BEN, 23, **context, type="interactive", interactive=form),
            )
        ),
        ((ADA, "No"), (ADA, "Yes"), (CLEO, "Large"), (BEN, '[form] {"comment":"fine","rating":"4"}')),
    )


def _not_to_answer() -> Post:
    """And one message to answer behind all that is none."""
    fault = {"code": 131051, "details": "Message type is not currently supported", "title": "Unsupported message type"}
    edited = {"original_message_id": "wamid.1", "message": {"type": "text", "text": {"body": "Text was edited"}}}
    moved = {"body": "User A changed from 1 to 2", "wa_id": "2", "type": "user_changed_number"}
    renamed = _from(ADA, 34, type="system", system={"user_id": "MX.1", "type": "user_changed_user_id"})
    del renamed["from"]
    change = _said(
        _from(ADA, 30, errors=[fault], type="unsupported"),
        _from(ADA, 31, errors=[{**fault, "code": 130501}], type="unknown"),
        _from(ADA, 32, type="reaction", reaction={"messsage_id": "wamid.1", "emoji": "👍"}),  # sic
        _from(ADA, 33, type="system", system=moved),
        _from(ADA, 35, type="edit", edit=edited),
        _from(ADA, 36, type="revoke", revoke={"original_message_id": "wamid.1"}),
        _from(ADA, 37, type="request_welcome"),
        _from(ADA, 38, type="text", text=None),
        _from(ADA, 39, type="text", text={"body": "still here"}),
    )
    change["value"]["messages"].append(renamed)
    foreign = _value(number="27681414235104944", messages=[_from(ADA, 40, type="text", text={"body": "for another"})])
    echo = {"field": "smb_message_echoes", "value": {"message_echoes": [{"from": NUMBER, "to": ADA, "type": "text"}]}}
    update = {"field": "account_update", "value": {"phone_number": "16505551111", "event": "VERIFIED_ACCOUNT"}}
    return Post(_meta(change, foreign, echo, update), ((ADA, "still here"),))


def _shop() -> Post:
    product = {"catalog_id": "CATALOG_ID", "product_retailer_id": "PRODUCT_ID"}
    item = {"product_retailer_id": "sku-1", "quantity": "2", "item_price": "3.50", "currency": "USD"}
    order = {"catalog_id": "the-catalog_id", "product_items": [item], "text": "Please quickly"}
    ad = {
        "source_url": "https://fb.me/ad",
        "source_id": "1",
        "source_type": "ad",
        "headline": "Shoes",
        "body": "New ones",
        "media_type": "image",
        "image_url": "https://example.org/raw.jpg",
        "video_url": "https://example.org/raw.mp4",
        "thumbnail_url": "https://example.org/thumb.jpg",
    }
    asked = {"context": {"from": "16505553333", "id": "wamid.1", "referred_product": product}}
    return Post(
        _meta(
            _said(
                _from(CLEO, 50, text={"body": "Is it still there?"}, **asked, type="text"),
                _from(BEN, 51, referral=ad, type="text", text={"body": "I saw your ad"}),
                _from(CLEO, 52, order=order, context={"from": CLEO, "id": "wamid.2"}, type="order"),
            )
        ),
        (
            (CLEO, "Is it still there?"),
            (BEN, "I saw your ad"),
            (CLEO, "[order] 2 × sku-1 at 3.50 USD\nPlease quickly"),
        ),
    )


# -- Twilio -----------------------------------------------------------------------------------------------------------

_TWILIO_USER = "whatsapp:+16315551234"


def _form(n: int, body: str, *media: str, **more: str) -> dict[str, str]:
    sid = f"SM{n:032x}"
    files = {
        f"MediaUrl{place}": f"https://api.twilio.com/2010-04-01/Accounts/AC1/Media/ME{place}"
        for place in range(len(media))
    }
    return {
        "SmsMessageSid": sid,
        "SmsSid": sid,
        "MessageSid": sid,
        "AccountSid": "AC1",
        "ApiVersion": "2010-04-01",
        "SmsStatus": "received",
        "NumSegments": "1",
        "ReferralNumMedia": "0",
        "NumMedia": str(len(media)),
        "ProfileName": "Zoë",
        "WaId": "16315551234",
        "From": _TWILIO_USER,
        "To": PROVIDERS["twilio"].settings["number"],
        "Body": body,
        **files,
        **{f"MediaContentType{place}": mime_type for place, mime_type in enumerate(media)},
        **more,
    }


def _twilio() -> list[Post]:
    told = [
        (_form(1, f"Grüße & 😀, {SLOW}"), f"Grüße & 😀, {SLOW}"),
        (_form(2, "Is this it?", "image/jpeg"), "[image that you cannot see] Is this it?"),
        (_form(3, "", "audio/ogg"), "[audio that you cannot hear]"),
        (_form(4, "", "application/pdf"), "[document that you cannot open]"),
        (_form(5, "", "text/vcard"), "[contact card that you cannot open]"),
        (_form(6, "", Latitude="52.5", Longitude="13.4", Address="Main St"), "[location] 52.5, 13.4"),
        (_form(7, "Yes", ButtonText="Yes", ButtonPayload="yes-1", MessageType="button"), "Yes"),
    ]
    status = {"MessageSid": "SMnone", "SmsSid": "SMnone", "AccountSid": "AC1", "ApiVersion": "2010-04-01"}
    more = {"MessageStatus": "delivered", "SmsStatus": "delivered", "To": _TWILIO_USER, "From": "whatsapp:+15550001"}
    return [*(Post(form, ((_TWILIO_USER, text),)) for form, text in told), Post(status | more)]


# -- Telegram ---------------------------------------------------------------------------------------------------------


def _update(n: int, chat: int, **content: Any) -> dict[str, Any]:
    person = {"id": abs(chat), "is_bot": False, "first_name": "Zoë", "username": "zoe", "language_code": "de"}
    place: dict[str, Any] = {"id": chat, "first_name": "Zoë", "username": "zoe", "type": "private"}
    if chat < 0:
        place = {"id": chat, "title": "Team", "is_forum": True, "type": "supergroup"}
    message = {"message_id": n, "from": person, "chat": place, "date": 1_795_200_000 + n, **content}
    return {"update_id": 904_000_000 + n, "message": message}


def _telegram() -> list[Post]:
    file = {"file_id": "BQACAgIAAx", "file_unique_id": "AgAD", "file_size": 11_222}
    sizes = [{**file, "width": side, "height": side} for side in (90, 320, 800)]
    entities = [{"offset": 0, "length": 6, "type": "bot_command"}]
    poll = {
        "id": "5",
        "question": "When?",
        "options": [{"text": "Mon", "voter_count": 0}, {"text": "Tue", "voter_count": 0}],
    }
    told: list[tuple[int, dict[str, Any], str]] = [
        (771, {"text": f"/start {SLOW} 😀", "entities": entities}, f"/start {SLOW} 😀"),
        (771, {"photo": sizes, "caption": "Look"}, "[image that you cannot see] Look"),
        (772, {"voice": {**file, "duration": 2, "mime_type": "audio/ogg"}}, "[voice message that you cannot hear]"),
        (772, {"sticker": {**file, "emoji": "👍", "type": "regular"}}, "[sticker that you cannot see: 👍]"),
        (
            773,
            {"animation": {**file, "duration": 1}, "document": {**file, "file_name": "giphy.mp4"}},
            "[animation that you cannot see]",
        ),
        (773, {"document": {**file, "file_name": "a.pdf"}}, "[document that you cannot open: a.pdf]"),
        (774, {"video_note": {**file, "duration": 1, "length": 240}}, "[video that you cannot see]"),
        (774, {"contact": {"phone_number": "+4915550101", "first_name": "Kim"}}, "[contact] Kim +4915550101"),
        (775, {"location": {"latitude": 52.5, "longitude": 13.4}}, "[location] 52.5, 13.4"),
        (775, {"poll": poll}, "[poll] When? (Mon; Tue)"),
        (-100_123, {"text": "in a topic", "is_topic_message": True, "message_thread_id": 9}, "in a topic"),
    ]
    asked = [Post(_update(n, chat, **more), ((str(chat), text),)) for n, (chat, more, text) in enumerate(told, 1)]
    joined = _update(20, -100_123, new_chat_members=[{"id": 5, "is_bot": False, "first_name": "Kim"}])
    member = {"update_id": 904_000_021, "my_chat_member": {"chat": {"id": 771, "type": "private"}, "date": 1}}
    return [*asked, Post(joined), Post(member)]


# -- Slack ------------------------------------------------------------------------------------------------------------


def _event(n: int, **event: Any) -> dict[str, Any]:
    at = f"17952000{n:02}.000{n:03}"
    return {
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
        "team_id": "T1",
        "api_app_id": "A1",
        "event": {"user": "U1", "ts": at, "event_ts": at, "team": "T1", **event},
        "type": "event_callback",
        "event_id": f"Ev0{n:03}",
        "event_time": 1_795_200_000 + n,
        "authorizations": [{"team_id": "T1", "user_id": "UBOT", "is_bot": True}],
    }


def _slack() -> list[Post]:
    direct = {"type": "message", "channel": "D1", "channel_type": "im"}
    mention = {"type": "app_mention", "channel": "C1", "text": "<@UBOT> where is it?"}
    file = {"id": "F1", "name": "photo.png", "mimetype": "image/png", "url_private": "https://files.slack.com/1"}
    thread = "1795200004.000004"
    clicked = {
        "type": "block_actions",
        "api_app_id": "A1",
        "user": {"id": "U1", "username": "zoe", "team_id": "T1"},
        "channel": {"id": "C2", "name": "help"},
        "trigger_id": "13345224609.738474920.8088930838d88f008e0",
        "message": {"type": "message", "ts": "1795100000.000001", "thread_ts": "1795100000.000000"},
        "actions": [{"action_id": "ok", "block_id": "b", "text": {"type": "plain_text", "text": "OK"}, "value": "1"}],
    }
    command = {
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
        "team_id": "T1",
        "channel_id": "C3",
        "user_id": "U1",
        "command": "/ask",
        "text": "why",
        "api_app_id": "A1",
        "trigger_id": "13345224609.738474920.8088930838d88f008e1",
        "response_url": "https://hooks.slack.com/commands/1234/5678",
    }
    edited = {"type": "message", "subtype": "message_changed", "channel": "D1", "channel_type": "im", "message": {}}
    return [
        Post(_event(1, **direct, text=f"Hi 😀, {SLOW}", client_msg_id="1"), (("D1", f"Hi 😀, {SLOW}"),)),
        Post(
            _event(2, **direct, text="Is this it?", subtype="file_share", files=[file]),
            (("D1", "[image that you cannot see: photo.png]\nIs this it?"),),
        ),
        Post(_event(3, **edited)),
        Post(_event(4, **mention), (("C1", "where is it?"),)),
        Post(_event(4, **{**mention, "type": "message", "channel_type": "channel"})),  # the same, as another event
        Post(
            _event(5, **mention | {"text": "<@UBOT> and mine?", "user": "U2", "thread_ts": thread}),
            (("C1", "and mine?"),),
        ),
        Post({"payload": json.dumps(clicked)}, (("C2", "OK"),)),
        Post(command, (("C3", "/ask why"),)),
        Post(_event(6, type="reaction_added", reaction="thumbsup", item={"type": "message", "channel": "D1"})),
    ]
