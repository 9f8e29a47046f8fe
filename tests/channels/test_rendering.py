"""Replies in the providers' words: split without breaking what a reader sees as one, addressed, and refusals sorted."""

import json
from typing import Any

import msgspec
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import registry
from shared.channels.api import Call, Outgoing, Refused, Sent
from shared.channels.splitting import split, units
from shared.channels.whatsapp import WhatsApp, WhatsAppCredentials, WhatsAppSettings
from tests.channels.providers import PROVIDERS

FAMILY, FLAG, ACCENTED = "👨‍👩‍👧‍👦", "🇩🇪", "e\u0301"
PIECES = ["word ", "sentence. ", " ", "\n\n", FAMILY, FLAG, ACCENTED, "👍🏽", "\u200d", "\u0301", "x" * 30]
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters()).map("".join)


def without_space(text: str) -> str:
    return "".join(text.split())


@given(TEXTS, st.integers(12, 60))
def test_no_message_is_too_long_or_empty_and_only_white_space_is_lost(text: str, limit: int) -> None:
    pieces = split(text, limit)
    assert without_space("".join(pieces)) == without_space(text)
    for piece in pieces:
        assert piece.strip() == piece != ""
        assert units(piece) <= limit or len(regex.findall(r"\X", piece)) == 1


@given(
    st.lists(st.sampled_from([FAMILY, FLAG, ACCENTED, "a", " ", "👍🏽"]), max_size=60).map("".join), st.integers(12, 40)
)
def test_what_a_reader_sees_as_one_character_stays_whole(text: str, limit: int) -> None:
    before = [one for one in regex.findall(r"\X", text) if not one.isspace()]
    after = [one for piece in split(text, limit) for one in regex.findall(r"\X", piece) if not one.isspace()]
    assert after == before


@given(st.lists(st.text("abcé", min_size=1, max_size=12), min_size=1, max_size=40), st.integers(12, 60))
def test_no_word_that_fits_is_broken(words: list[str], limit: int) -> None:
    assert [word for piece in split(" ".join(words), limit) for word in piece.split()] == words


def test_a_message_ends_where_a_reader_would_end_it() -> None:
    paragraphs = ["First one. It has two sentences.", "Second one."]
    assert split("\n\n".join(paragraphs), 40) == paragraphs
    assert split("One sentence here. And another one", 30) == ["One sentence here.", "And another one"]
    assert split("just some words", 10) == ["just some", "words"]
    assert split("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert split(" \n ", 10) == []


def test_long_texts_take_no_long_time() -> None:
    """Quadratic work would not end within the test's time limit."""
    assert len(split("word " * 200_000, 4_096)) == 245


DETAILS: dict[str, dict[str, Any]] = {
    "whatsapp": {"message_id": "wamid.1", "to": "16505551"},
    "telegram": {"message_id": "5", "chat_id": "771"},
    "twilio": {"message_id": "SM1", "from": "whatsapp:+1650"},
    "slack": {"message_id": "1.0", "channel": "C1", "thread": "1.0"},
}


def rendered(kind: str, text: str, **details: Any) -> list[Call]:
    adapter, provider = registry.load()[kind], PROVIDERS[kind]
    settings = msgspec.convert(provider.settings, adapter.settings)
    credentials = msgspec.convert(provider.credentials, adapter.credentials)
    whose = {"details": {**DETAILS[kind], **details}, "reference": "delivery-1"}
    texts = adapter.cut(text, settings)
    return [
        adapter.render(
            Outgoing(text=part, first=place == 0, **whose), settings, credentials, base_url="http://127.0.0.1:9"
        )
        for place, part in enumerate(texts)
    ]


LIMITS = {"whatsapp": 4_096, "telegram": 4_096, "twilio": 1_600, "slack": 4_000}


@pytest.mark.parametrize("kind", sorted(PROVIDERS))
def test_a_long_reply_is_several_calls_in_order(kind: str) -> None:
    text = " ".join(f"word{n:05}" for n in range(2_000))
    calls = rendered(kind, text)
    bodies = [dict(call.body or call.form or {}) for call in calls]
    said = [body.get("Body") or body.get("text") for body in bodies]
    parts = [part["body"] if isinstance(part, dict) else str(part) for part in said]
    assert " ".join(parts) == text
    assert all(units(part) <= LIMITS[kind] for part in parts)
    assert len(parts) == -(-units(text) // LIMITS[kind]) or len(parts) == -(-units(text) // LIMITS[kind]) + 1
    assert {call.method for call in calls} == {"POST"}
    assert all(call.url.startswith("http://127.0.0.1:9/") for call in calls)


def test_a_whatsapp_reply_quotes_its_question_once_and_carries_our_reference() -> None:
    first, second = (dict(call.body or {}) for call in rendered("whatsapp", "a " * 3_000))
    assert first["context"] == {"message_id": "wamid.1"}
    assert "context" not in second
    assert (first["to"], first["type"], first["biz_opaque_callback_data"]) == ("16505551", "text", "delivery-1")
    [call] = rendered("whatsapp", "hi")
    assert call.headers == {"authorization": "Bearer EAAG-token"}
    assert call.url.endswith("/v26.0/106540352242922/messages")


def test_a_user_without_a_phone_is_written_to_by_its_id() -> None:
    [call] = rendered("whatsapp", "hi", to=None, recipient="US.1")
    assert dict(call.body or {})["recipient"] == "US.1"
    assert "to" not in dict(call.body or {})


META = WhatsApp()
SETTINGS = WhatsAppSettings(phone_number_id="1065")
CREDENTIALS = WhatsAppCredentials(app_secrets=["x"], verify_token="x", access_token="t")


def test_a_template_has_no_line_breaks_its_length_is_bounded_and_nothing_is_lost() -> None:
    settings = WhatsAppSettings(phone_number_id="1065", template_name="reply_later")
    long = "Hello\n\n\tthere   " + "x " * 2_000
    texts = META.cut(long, settings, template=True)
    assert all(len(text) <= 1_024 for text in texts)
    assert " ".join(texts).split() == long.split()
    outgoing = Outgoing(text=texts[0], details={"to": "1"}, reference="d", template=True)
    template = dict(META.render(outgoing, settings, CREDENTIALS).body or {})["template"]
    assert (template["name"], template["language"]) == ("reply_later", {"code": "en_US"})
    [text] = [each["text"] for each in template["components"][0]["parameters"]]
    assert text.startswith("Hello there x x")


def test_a_text_of_markup_is_cut_by_its_written_length() -> None:
    parts = [dict(call.body or {})["text"] for call in rendered("slack", "&" * 3_000 + " end")]
    assert all(len(part) <= 4_000 for part in parts)
    assert len(parts) > 1
    assert "".join(parts).replace("&amp;", "&") == "&" * 3_000 + " end"


def test_what_a_tenant_sets_cannot_lead_a_request_elsewhere() -> None:
    settings = WhatsAppSettings(phone_number_id="../../x?y#z", graph_version="@evil.example/")
    call = META.render(Outgoing(text="hi", details={"to": "1"}, reference="d"), settings, CREDENTIALS)
    assert call.url == "https://graph.facebook.com/%40evil.example%2F/..%2F..%2Fx%3Fy%23z/messages"
    telegram = registry.load()["telegram"]
    credentials = telegram.credentials(secret_tokens=["x"], bot_token="1:a/../../b?c")
    outgoing = Outgoing(text="hi", details={"chat_id": "1"}, reference="d")
    assert telegram.render(outgoing, telegram.settings(), credentials).url.endswith(
        "/bot1:a%2F..%2F..%2Fb%3Fc/sendMessage"
    )


def test_read_and_typing_are_one_call() -> None:
    call = META.render_working({"message_id": "wamid.1"}, SETTINGS, CREDENTIALS)
    assert call is not None
    assert dict(call.body or {}) == {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": "wamid.1",
        "typing_indicator": {"type": "text"},
    }


def test_telegram_and_slack_answer_where_they_were_asked() -> None:
    [call] = rendered("telegram", "hi", topic="9")
    body = dict(call.body or {})
    assert (body["chat_id"], body["message_thread_id"]) == ("771", "9")
    assert body["reply_parameters"] == {"message_id": 5, "allow_sending_without_reply": True}
    assert call.url.endswith("/bot123:bot/sendMessage")
    [call] = rendered("slack", "a < b & c")
    assert dict(call.body or {}) == {"channel": "C1", "thread_ts": "1.0", "text": "a &lt; b &amp; c"}


def meta(code: int, status: int = 400) -> bytes:
    return json.dumps({"error": {"code": code, "message": "(#x)", "error_data": {"details": "why"}}}).encode()


VERDICTS = [
    ("limited", "whatsapp", 400, meta(131056)),
    ("limited", "whatsapp", 429, meta(130429)),
    ("limited", "whatsapp", 400, meta(80007)),
    ("limited", "whatsapp", 400, meta(4)),
    ("retry", "whatsapp", 500, meta(1)),
    ("retry", "whatsapp", 503, b"<html>"),
    ("unknown", "whatsapp", 502, b"<html>"),
    ("unknown", "whatsapp", 504, b""),
    ("pause", "whatsapp", 401, meta(190)),
    ("pause", "whatsapp", 403, meta(200)),
    ("pause", "whatsapp", 400, meta(131048)),
    ("template", "whatsapp", 400, meta(131047)),
    ("permanent", "whatsapp", 400, meta(131026)),
    ("permanent", "whatsapp", 400, meta(132001)),
    ("permanent", "whatsapp", 400, meta(131050)),
    ("permanent", "whatsapp", 404, b"[]"),
    ("limited", "telegram", 429, b'{"ok":false,"error_code":429,"parameters":{"retry_after":7}}'),
    ("pause", "telegram", 401, b'{"ok":false,"error_code":401,"description":"Unauthorized"}'),
    ("permanent", "telegram", 403, b'{"ok":false,"error_code":403,"description":"Forbidden: bot was blocked"}'),
    ("unknown", "telegram", 502, b"bad gateway"),
    ("limited", "twilio", 429, b'{"code":20429}'),
    ("retry", "twilio", 503, b'{"code":20503}'),
    ("unknown", "twilio", 502, b"<html>"),
    ("pause", "twilio", 401, b'{"code":20003}'),
    ("template", "twilio", 400, b'{"code":63016}'),
    ("permanent", "twilio", 400, b'{"code":21610}'),
    ("limited", "slack", 429, b"{}"),
    ("limited", "slack", 200, b'{"ok":false,"error":"ratelimited"}'),
    ("retry", "slack", 200, b'{"ok":false,"error":"fatal_error"}'),
    ("permanent", "slack", 200, b'{"ok":false,"error":"not_in_channel"}'),
    ("unknown", "slack", 504, b"<html>"),
    ("pause", "slack", 200, b'{"ok":false,"error":"invalid_auth"}'),
    ("permanent", "slack", 200, b'{"ok":false,"error":"channel_not_found"}'),
]


META_CODES = {
    "limited": (4, 80007, 130429, 131056),
    "retry": (1, 2, 131000, 131016, 131057, 133004),
    "pause": (0, 10, 190, 200, 204, 299, 368, 131005, 131031, 131042, 131048, 131064),
    "template": (131047,),
    "permanent": (
        *(100, 130472, 131008, 131009, 131021, 131026, 131030, 131049, 131050, 131051, 131052, 131053, 131062),
        *(132000, 132001, 132005, 132007, 132012, 132015, 132016, 132068, 132069),
    ),
}


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
def test_metas_codes_decide_whatever_the_http_status(status: int) -> None:
    for verdict, codes in META_CODES.items():
        for code in codes:
            judged = registry.load()["whatsapp"].judge(status, {}, meta(code, status))
            assert isinstance(judged, Refused)
            assert (judged.verdict, judged.code) == (verdict, str(code))
            assert judged.everyone == (code != 131056), "only the pair's limit is of one user"


@pytest.mark.parametrize(("verdict", "kind", "status", "body"), VERDICTS)
def test_refusals_are_sorted_into_what_to_do(verdict: str, kind: str, status: int, body: bytes) -> None:
    judged = registry.load()[kind].judge(status, {}, body)
    assert isinstance(judged, Refused)
    assert judged.verdict == verdict


def test_a_provider_says_how_long_to_wait() -> None:
    told = registry.load()["telegram"].judge(429, {}, b'{"ok":false,"error_code":429,"parameters":{"retry_after":7}}')
    assert isinstance(told, Refused)
    assert told.after_s == 7
    by_header = registry.load()["slack"].judge(429, {"retry-after": "30"}, b"{}")
    assert isinstance(by_header, Refused)
    assert by_header.after_s == 30


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("whatsapp", b'{"messaging_product":"whatsapp","messages":[{"id":"9"}]}'),
        ("telegram", b'{"ok":true,"result":{"message_id":9}}'),
        ("twilio", b'{"sid":"9"}'),
        ("slack", b'{"ok":true,"ts":"9"}'),
    ],
)
def test_what_was_taken_has_the_providers_id(kind: str, body: bytes) -> None:
    assert registry.load()[kind].judge(200, {}, body) == Sent(message_id="9")
