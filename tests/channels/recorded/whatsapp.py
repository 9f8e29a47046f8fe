"""WhatsApp's, in the shapes of Meta's public Postman collection and of its newer notes (business-scoped ids)."""

from typing import Any

from tests.channels.providers import PROVIDERS
from tests.channels.recorded.post import SLOW, Post

WABA, NUMBER = "8856996819413533", PROVIDERS["whatsapp"].settings["phone_number_id"]
ADA, CLEO, BEN = "16315551234", "4915550100", "US.13491208655302741918"
"""Ben has no phone number that we may know."""


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


def posts() -> list[Post]:
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
