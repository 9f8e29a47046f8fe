"""Telegram's kinds of messages, told in words that an agent can answer, with what else is worth knowing of each.

What only tells of the chat (who joined, what was pinned) has no words. Raises Malformed for what is not as it must be.
"""

from collections.abc import Callable, Mapping
from typing import Any

from shared.channels.attached import Kind, unseen
from shared.channels.reading import Malformed, described, identifier, member, objects, optional

Told = tuple[str, dict[str, Any]]
"""The words, and details."""


def told(message: dict[str, Any]) -> Told:
    for name, telling in _TELLINGS.items():
        if message.get(name) is not None:
            return telling(message)
    return "", {}


def _text(message: dict[str, Any]) -> Told:
    return member(message, "text", str), {}


def _media(name: str, kind: Kind) -> Callable[[dict[str, Any]], Told]:
    def read(message: dict[str, Any]) -> Told:
        found: Any = message[name]
        if name == "photo":  # in several sizes, the largest last
            found = found[-1] if isinstance(found, list) and found else None
        if not isinstance(found, dict):
            raise Malformed(f"`{name}` must be an object")
        filename = optional(found, "file_name", str)
        mime_type = optional(found, "mime_type", str)
        attached = described(kind=name, id=identifier(found, "file_id"), mime_type=mime_type, filename=filename)
        shown = optional(found, "emoji", str) if name == "sticker" else filename
        return unseen(kind, shown, optional(message, "caption", str)), {"media": attached}

    return read


def _location(message: dict[str, Any]) -> Told:
    place, venue = member(message, "location", dict), optional(message, "venue", dict) or {}
    named = ", ".join(filter(None, (optional(venue, name, str) for name in ("title", "address"))))
    where = f"{place.get('latitude')}, {place.get('longitude')}"
    return f"[location] {named} ({where})" if named else f"[location] {where}", {}


def _contact(message: dict[str, Any]) -> Told:
    contact = member(message, "contact", dict)
    names = (optional(contact, name, str) for name in ("first_name", "last_name", "phone_number"))
    return f"[contact] {' '.join(filter(None, names))}", {}


def _poll(message: dict[str, Any]) -> Told:
    poll = member(message, "poll", dict)
    choices = "; ".join(filter(None, (optional(each, "text", str) for each in objects(poll, "options"))))
    return f"[poll] {member(poll, 'question', str)} ({choices})", {}


def _dice(message: dict[str, Any]) -> Told:
    dice = member(message, "dice", dict)
    return f"[dice] {member(dice, 'emoji', str)} {member(dice, 'value', int)}", {}


_TELLINGS: Mapping[str, Callable[[dict[str, Any]], Told]] = {
    "text": _text,
    "animation": _media("animation", "animation"),  # comes with a document of the same file
    "photo": _media("photo", "image"),
    "voice": _media("voice", "voice message"),
    "audio": _media("audio", "audio"),
    "video_note": _media("video_note", "video"),
    "video": _media("video", "video"),
    "document": _media("document", "document"),
    "sticker": _media("sticker", "sticker"),
    "location": _location,
    "contact": _contact,
    "poll": _poll,
    "dice": _dice,
}
"""The first one that a message has is what it is."""
