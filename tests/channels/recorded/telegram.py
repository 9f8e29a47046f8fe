"""Telegram's, as its Bot API describes updates."""

from typing import Any

from tests.channels.recorded.post import SLOW, Post


def _update(n: int, chat: int, **content: Any) -> dict[str, Any]:
    person = {"id": abs(chat), "is_bot": False, "first_name": "Zoë", "username": "zoe", "language_code": "de"}
    place: dict[str, Any] = {"id": chat, "first_name": "Zoë", "username": "zoe", "type": "private"}
    if chat < 0:
        place = {"id": chat, "title": "Team", "is_forum": True, "type": "supergroup"}
    message = {"message_id": n, "from": person, "chat": place, "date": 1_795_200_000 + n, **content}
    return {"update_id": 904_000_000 + n, "message": message}


def posts() -> list[Post]:
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
