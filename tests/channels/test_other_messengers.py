"""Twilio, Telegram and Slack as they sign and send. Vectors are by twilio 9.13's and slack_sdk 3.47's own code."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from shared.channels.api import Hook, Reading
from shared.channels.slack import MAX_AGE_S, Slack, SlackCredentials, SlackSettings
from shared.channels.telegram import Telegram, TelegramSettings
from shared.channels.twilio import Twilio, TwilioCredentials, TwilioSettings
from shared.errors import BadSignature
from tests.channels.conftest import Connect
from tests.channels.providers import PUBLIC
from tests.channels.providers import Slack as SlackSide
from tests.channels.providers import Telegram as TelegramSide
from tests.channels.providers import Twilio as TwilioSide


def hook(body: bytes, *, url: str = "http://x/", at_s: float = 0.0, **headers: str) -> Hook:
    query = dict(pair.split("=", 1) for pair in url.partition("?")[2].split("&") if pair)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Hook(method="POST", url=url, headers=named, query=query, body=body, at_s=at_s)


# -- Twilio -----------------------------------------------------------------------------------------------------------

FORM = {"MessageSid": "SM7", "From": "+15550100", "To": "+15550001", "Body": "Grüße & 😀", "NumMedia": "0", "Empty": ""}
BODY = urlencode(FORM).encode()
TWILIO, TOKEN = Twilio(), TwilioCredentials(auth_tokens=["the new one", "an auth token"])
TWILIO_SETTINGS = TwilioSettings(account_sid="AC1", number="whatsapp:+15550001")
SHA256 = {"x_twilio_webhooks_signature_settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"}


@pytest.mark.parametrize(
    ("url", "signature", "more"),
    [
        ("https://chat.example.com/hook?a=1&b=2", "YS3+QIUwi0THPEX0citT8D7KIQE=", {}),
        ("https://chat.example.com:443/hook?a=1&b=2", "YS3+QIUwi0THPEX0citT8D7KIQE=", {}),
        ("https://chat.example.com:8443/hook", "bA5/SC9I31ZHVk/XRbCLV9pfxe4=", {}),
        ("https://chat.example.com/hook?a=1&b=2", "96gXNZz5gTdmg4RovANmRcr6Jtywjqc+TUAnzzQDocE=", SHA256),
        ("https://chat.example.com:8443/hook", "/nufhZqmLzqSIOXIUCQf4EiHDmCy364JfGfAxsuuE3s=", SHA256),
    ],
)
def test_twilios_own_signatures_pass_and_others_do_not(url: str, signature: str, more: dict[str, str]) -> None:
    TWILIO.verify(hook(BODY, url=url, x_twilio_signature=signature, **more), TWILIO_SETTINGS, TOKEN)
    for wrong in (
        hook(BODY + b"x", url=url, x_twilio_signature=signature, **more),
        hook(BODY, url=url + "0", x_twilio_signature=signature, **more),
        hook(BODY, url=url, x_twilio_signature=signature[:-2] + "A=", **more),
        hook(BODY, url=url, x_twilio_signature=signature, x_twilio_webhooks_signature_settings="algorithm=MD5"),
    ):
        with pytest.raises(BadSignature):
            TWILIO.verify(wrong, TWILIO_SETTINGS, TOKEN)


def test_twilios_json_is_signed_by_its_hash_in_the_url() -> None:
    digest = "b439551e91fd6a3f47a92cbe97dcc9dd6686355b07d85784b9ccc0b55f8a2a8b"
    url = f"https://chat.example.com/hook?bodySHA256={digest}"
    signed = {"url": url, "x_twilio_signature": "zEP0fn97dPzKQyQeawvNvd+iPxU="}
    TWILIO.verify(hook(b'{"MessageSid":"SM7"}', **signed), TWILIO_SETTINGS, TOKEN)
    with pytest.raises(BadSignature):
        TWILIO.verify(hook(b'{"MessageSid":"SM8"}', **signed), TWILIO_SETTINGS, TOKEN)


def twilio(**form: str) -> Reading:
    return TWILIO.read(hook(urlencode({**TwilioSide().message("Hello"), **form}).encode()), TWILIO_SETTINGS)


def test_a_twilio_message_with_pictures_and_a_place() -> None:
    [message] = twilio(
        Body="Here", NumMedia="2", MediaUrl0="https://api.twilio.com/1", MediaContentType0="image/jpeg",
        MediaUrl1="https://api.twilio.com/2", MediaContentType1="audio/ogg", Latitude="52.5", Longitude="13.4",
    ).messages  # fmt: skip
    assert message.text == "[image that you cannot see] [audio that you cannot hear] Here [location] 52.5, 13.4"
    assert message.details["media"][1] == {"url": "https://api.twilio.com/2", "mime_type": "audio/ogg"}
    assert message.details["from"] == "whatsapp:+16505551"


@pytest.mark.parametrize(
    ("mime_type", "words"),
    [
        ("application/pdf", "[document that you cannot open]"),
        ("text/plain", "[document that you cannot open]"),
        ("text/x-vCard", "[contact card that you cannot open]"),
        ("video/mp4", "[video that you cannot see]"),
        ("", "[document that you cannot open]"),
    ],
)
def test_a_file_is_named_by_what_it_is(mime_type: str, words: str) -> None:
    [message] = twilio(
        Body="", NumMedia="1", MediaUrl0="https://api.twilio.com/1", MediaContentType0=mime_type
    ).messages
    assert message.text == words


@pytest.mark.parametrize("wrong", [{"To": "+19990000"}, {"AccountSid": "AC2"}])
def test_what_came_for_another_number_is_kept(wrong: dict[str, str]) -> None:
    reading = twilio(**wrong)
    assert ([kept.reason for kept in reading.kept], reading.messages) == (["foreign"], [])


def test_twilios_statuses() -> None:
    def status(state: str, **more: str) -> Reading:
        form = {"MessageSid": "SM9", "MessageStatus": state, "To": "+1", "AccountSid": "AC1", **more}
        return TWILIO.read(hook(urlencode(form).encode()), TWILIO_SETTINGS)

    [failed] = status("undelivered", ErrorCode="30003").statuses
    assert (failed.state, failed.message_id, failed.error) == ("failed", "SM9", {"code": "30003", "message": None})
    assert [status(state).statuses[0].state for state in ("sent", "delivered", "read")] == ["sent", "delivered", "read"]
    assert status("queued").ignored == 1


async def test_twilio_is_answered_with_an_empty_document_and_known_by_its_public_url(
    connect_line: Connect, queued
) -> None:
    line = await connect_line("twilio")
    response = await line.deliver(line.provider.message("hello"))
    assert response.headers["content-type"].startswith("text/xml")
    assert response.text.endswith("<Response/>")
    elsewhere = await connect_line("twilio", public_url="https://elsewhere.example.com")
    assert (await elsewhere.deliver(line.provider.message("hello"))).status_code == 403, f"signed for {PUBLIC}"
    assert len(await queued()) == 1


# -- Telegram ---------------------------------------------------------------------------------------------------------

TELEGRAM = TelegramSide()


def telegram(update: Any, **settings: Any) -> Reading:
    raw = TELEGRAM.signed(update, "/").body
    return Telegram().read(hook(raw), TelegramSettings(**settings))


GROUP = {"id": -100, "type": "supergroup", "title": "Team"}
SAID: list[tuple[dict[str, Any], str]] = [
    (
        {"photo": [{"file_id": "s"}, {"file_id": "large"}], "caption": "Look", "text": None},
        "[image that you cannot see] Look",
    ),
    ({"voice": {"file_id": "v", "mime_type": "audio/ogg"}, "text": None}, "[voice message that you cannot hear]"),
    ({"document": {"file_id": "d", "file_name": "a.pdf"}, "text": None}, "[document that you cannot open: a.pdf]"),
    ({"sticker": {"file_id": "x", "emoji": "👍"}, "text": None}, "[sticker that you cannot see: 👍]"),
    ({"location": {"latitude": 52.5, "longitude": 13.4}, "text": None}, "[location] 52.5, 13.4"),
    ({"contact": {"first_name": "Ada", "phone_number": "+1"}, "text": None}, "[contact] Ada +1"),
    ({"audio": {"file_id": "a", "file_name": "song.mp3"}, "text": None}, "[audio that you cannot hear: song.mp3]"),
    ({"video": {"file_id": "v"}, "caption": " ", "text": None}, "[video that you cannot see]"),
    ({"video_note": {"file_id": "v"}, "text": None}, "[video that you cannot see]"),
    (
        {"animation": {"file_id": "g"}, "document": {"file_id": "g", "file_name": "g.mp4"}, "text": None},
        "[animation that you cannot see]",
    ),
    (
        {"venue": {"title": "Café", "address": "Weg 1"}, "location": {"latitude": 1, "longitude": 2}, "text": None},
        "[location] Café, Weg 1 (1, 2)",
    ),
    (
        {"poll": {"question": "When?", "options": [{"text": "Mon"}, {"text": "Tue"}]}, "text": None},
        "[poll] When? (Mon; Tue)",
    ),
    ({"dice": {"emoji": "🎲", "value": 4}, "text": None}, "[dice] 🎲 4"),
]


@pytest.mark.parametrize(("message", "words"), SAID)
def test_what_is_said_on_telegram_becomes_words(message: dict[str, Any], words: str) -> None:
    said = {name: value for name, value in {**TELEGRAM.said(""), **message}.items() if value is not None}
    [found] = telegram({"update_id": 1, "message": said}).messages
    assert found.text == words
    if "photo" in message:
        assert found.details["media"]["id"] == "large"


def test_a_private_chat_is_its_users_and_a_group_its_own() -> None:
    [private] = telegram(TELEGRAM.message("hi", user="1")).messages
    assert (private.user, private.conversation) == ("771", "771")
    said = [TELEGRAM.said("hi", user=user, chat=GROUP) for user in ("1", "2")]
    found = [telegram({"update_id": n, "message": message}).messages[0] for n, message in enumerate(said)]
    assert {message.user for message in found} == {"chat:-100"}
    assert [message.details["user"] for message in found] == ["771", "772"]
    [topic] = telegram(
        {"update_id": 3, "message": TELEGRAM.said("x", chat=GROUP, is_topic_message=True, message_thread_id=9)}
    ).messages
    assert (topic.conversation, topic.details["topic"]) == ("-100/9", "9")


def test_a_pressed_button_says_its_data_in_its_chat() -> None:
    query = {"id": "q1", "from": {"id": 771, "is_bot": False}, "data": "yes", "message": TELEGRAM.said("Sure?")}
    [found] = telegram({"update_id": 1, "callback_query": query}).messages
    assert (found.text, found.conversation, found.details["callback_query_id"]) == ("yes", "771", "q1")


def test_edits_are_kept_unless_they_are_wanted_and_bots_are_not_heard() -> None:
    edited = {"update_id": 1, "edited_message": TELEGRAM.said("better")}
    assert [kept.reason for kept in telegram(edited).kept] == ["edited_message"]
    assert [message.text for message in telegram(edited, edits=True).messages] == ["better"]
    bot = TELEGRAM.said("I am a bot", **{"from": {"id": 9, "is_bot": True}})
    assert telegram({"update_id": 2, "message": bot}).ignored == 1
    joined = {name: value for name, value in TELEGRAM.said("").items() if name != "text"}
    assert [kept.reason for kept in telegram({"update_id": 3, "message": joined}).kept] == ["empty"]


# -- Slack ------------------------------------------------------------------------------------------------------------

SLACK, SIDE = Slack(), SlackSide()
SECRETS = SlackCredentials(signing_secrets=["the new one", "a signing secret"])
SIGNED_AT = 1_750_000_000
SLACK_BODY = '{"type":"event_callback","text":"Grüße"}'.encode()
SLACK_SIGNED = {
    "x_slack_request_timestamp": str(SIGNED_AT),
    "x_slack_signature": "v0=67cd6838482fbd7de93d5cb28546d5b0d1513a4026ea1f944556b8cebde40df5",
}


@pytest.mark.parametrize(("age_s", "genuine"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_slacks_own_signature_passes_for_five_minutes(age_s: int, genuine: bool) -> None:
    sent = hook(SLACK_BODY, at_s=SIGNED_AT + age_s, **SLACK_SIGNED)
    if genuine:
        SLACK.verify(sent, SlackSettings(), SECRETS)
    else:
        with pytest.raises(BadSignature, match="five minutes"):
            SLACK.verify(sent, SlackSettings(), SECRETS)


@pytest.mark.parametrize("at", ["", "yesterday", "-1", "1750000000.5", "9" * 40])
def test_a_time_that_is_none_is_refused(at: str) -> None:
    with pytest.raises(BadSignature):
        SLACK.verify(
            hook(SLACK_BODY, at_s=SIGNED_AT, **{**SLACK_SIGNED, "x_slack_request_timestamp": at}),
            SlackSettings(),
            SECRETS,
        )


def slack(content: Any, **settings: Any) -> Reading:
    request = SIDE.signed(content, "/")
    known = {**SlackSide.settings, **settings}
    return SLACK.read(hook(request.body, content_type=request.headers["content-type"]), SlackSettings(**known))


def test_a_mention_starts_a_thread_and_the_thread_is_the_conversation() -> None:
    common = {"channel": "C1", "user": "U1", "text": "<@UBOT> how &lt;are&gt; you?"}
    [first] = slack(SIDE.event(type="app_mention", ts="1.0", **common)).messages
    assert (first.text, first.conversation, first.user) == ("how <are> you?", "C1/1.0", "room:C1")
    assert (first.details["thread"], first.details["user"]) == ("1.0", "U1")
    [later] = slack(SIDE.event(type="app_mention", ts="2.0", thread_ts="1.0", **{**common, "user": "U2"})).messages
    assert (later.conversation, later.user) == (first.conversation, first.user)


def test_one_message_in_two_events_is_one() -> None:
    common = {"channel": "C1", "user": "U1", "text": "<@UBOT> hi", "ts": "1.0"}
    mention = slack(SIDE.event(type="app_mention", **common)).messages
    plain = slack(SIDE.event(type="message", channel_type="channel", **common), all_messages=True).messages
    assert mention[0].id == plain[0].id


def test_what_is_said_to_others_is_not_heard_unless_the_channel_wants_it() -> None:
    said = SIDE.event(type="message", channel_type="channel", channel="C1", user="U1", text="lunch?")
    assert (slack(said).messages, slack(said).ignored) == ([], 1)
    assert [message.text for message in slack(said, all_messages=True).messages] == ["lunch?"]


@pytest.mark.parametrize(
    "echo",
    [
        {"user": "UBOT"},
        {"bot_id": "B1"},
        {"subtype": "bot_message"},
        {"subtype": "message_changed"},
        {"subtype": "channel_join"},
    ],
)
def test_bots_above_all_we_ourselves_are_never_answered(echo: dict[str, str]) -> None:
    event = {"type": "message", "channel_type": "im", "channel": "D1", "user": "U1", "text": "hi", **echo}
    reading = slack(SIDE.event(**event))
    assert (reading.messages, reading.kept, reading.ignored) == ([], [], 1)


def test_files_on_slack_are_named_by_what_they_are() -> None:
    files = [{"id": "F1", "name": "photo.png", "mimetype": "image/png"}, {"id": "F2"}, "none"]
    [message] = slack(
        {**SIDE.message("Is this it?"), "event": {**SIDE.message("Is this it?")["event"], "files": files}}
    ).messages
    assert message.text == "[image that you cannot see: photo.png]\n[document that you cannot open]\nIs this it?"
    assert message.details["media"][0] == {
        "kind": "file",
        "id": "F1",
        "mime_type": "image/png",
        "filename": "photo.png",
    }


def test_another_apps_events_are_kept() -> None:
    assert [kept.reason for kept in slack({**SIDE.message("hi"), "api_app_id": "A2"}).kept] == ["foreign"]


def test_commands_and_buttons() -> None:
    command = {"command": "/ask", "text": "why?", "user_id": "U1", "channel_id": "C1", "trigger_id": "t1"}
    [asked] = slack({**command, "api_app_id": "A1"}).messages
    assert (asked.text, asked.id) == ("/ask why?", "trigger/t1")
    clicked = {
        "type": "block_actions", "api_app_id": "A1", "user": {"id": "U1"}, "channel": {"id": "C1"}, "trigger_id": "t2",
        "message": {"ts": "2.0", "thread_ts": "1.0"},
        "actions": [{"action_id": "a", "text": {"type": "plain_text", "text": "Yes"}, "value": "y"}],
    }  # fmt: skip

    [click] = slack({"payload": json.dumps(clicked)}).messages
    assert (click.text, click.conversation, click.details["choice"]) == ("Yes", "C1/1.0", {"id": "a", "value": "y"})
    assert slack({"ssl_check": "1"}).ignored == 1
    assert [kept.reason for kept in slack({"payload": json.dumps({**clicked, "type": "view_submission"})}).kept] == [
        "view_submission"
    ]


async def test_slack_verifies_the_url_and_only_slack_can(connect_line: Connect) -> None:
    line = await connect_line("slack")
    asked = {"type": "url_verification", "challenge": "3eZbrw1aB", "token": "old"}
    response = await line.deliver(asked)
    assert (response.status_code, response.text) == (200, "3eZbrw1aB")
    assert (await line.deliver(asked, secret="guess")).status_code == 403


async def test_a_replay_is_refused_and_queues_nothing(connect_line: Connect, queued) -> None:
    line = await connect_line("slack")
    content = line.provider.message("hello")
    assert (await line.deliver(content, age_s=MAX_AGE_S + 5)).status_code == 403
    assert (await line.deliver(content, age_s=-MAX_AGE_S - 5)).status_code == 403
    assert await queued() == []


async def test_slacks_retries_are_known_by_the_message(connect_line: Connect, queued) -> None:
    line = await connect_line("slack")
    content = line.provider.message("hello")
    for n in range(4):
        request = line.provider.signed(content, line.path)
        request.headers |= {"x-slack-retry-num": str(n), "x-slack-retry-reason": "http_timeout"} if n else {}
        assert (await line.send(request)).status_code == 200
    assert len(await queued()) == 1


async def test_a_status_of_twilio_brings_the_reference_that_its_url_holds(connect_line: Connect, inbox) -> None:
    """Twilio echoes nothing but signs the URL as it was given it, query and all."""
    line = await connect_line("twilio")
    status = {"MessageSid": "SM9", "MessageStatus": "delivered", "To": "+1", "AccountSid": "AC1"}
    request = line.provider.signed(status, f"{line.path}?reference=d%3A1%3A2")
    request.query = "?reference=d%3A1%3A2"
    assert (await line.send(request)).status_code == 200
    [row] = await inbox()
    assert (row["message_id"], row["state"], row["reference"]) == ("SM9", "delivered", "d:1:2")
    request.query = "?reference=another"
    assert (await line.send(request)).status_code == 403
