"""WhatsApp's kinds of messages, told in words that an agent can answer, with what else is worth knowing of each.

Every function takes a message of its kind and raises Malformed for one that is not as Meta describes it. Media are
named, not fetched.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from shared.channels.attached import Kind, unseen
from shared.channels.reading import Malformed, described, identifier, member, objects, optional, read_object

Told = tuple[str, dict[str, Any]]
"""The words, and details."""
Telling = Callable[[dict[str, Any]], Told]


def kind_of(message: dict[str, Any]) -> str:
    """`type`; some of Meta's own messages have none: then what they hold says it."""
    if (kind := optional(message, "type", str)) is not None:
        return kind
    return next((name for name in TEXTS if name in message), "untyped")


def _text(message: dict[str, Any]) -> Told:
    return member(member(message, "text", dict), "body", str), {}


def _button(message: dict[str, Any]) -> Told:
    button = member(message, "button", dict)
    return member(button, "text", str), {"choice": described(id=optional(button, "payload", str))}


def _interactive(message: dict[str, Any]) -> Told:
    interactive = member(message, "interactive", dict)
    kind = member(interactive, "type", str)
    reply = member(interactive, kind, dict)
    if kind == "nfm_reply":
        return _form(reply)
    if kind not in {"button_reply", "list_reply"}:
        raise Malformed(f"`interactive` of the type {kind[:64]} is not known")
    words = described(id=optional(reply, "id", str), description=optional(reply, "description", str))
    return member(reply, "title", str), {"choice": words}


def _form(reply: dict[str, Any]) -> Told:
    """What a Flow was filled in with, as the form has it. Its token is ours and says nothing to a model."""
    told = member(reply, "response_json", str)
    name, token = optional(reply, "name", str), None
    try:
        answers = read_object(told.encode())
        token = answers.pop("flow_token", None)
        told = msgspec.json.encode(answers).decode()
    except Malformed:
        pass  # then its text is all there is
    return f"[form] {told}", {"form": described(name=name, token=token)}


def _reaction(message: dict[str, Any]) -> Told:
    reaction = member(message, "reaction", dict)
    emoji = optional(reaction, "emoji", str)
    to = optional(reaction, "message_id", str) or optional(reaction, "messsage_id", str)  # sic, in Meta's own example
    return (f"[reaction] {emoji}" if emoji else ""), {"reaction_to": to}


def _location(message: dict[str, Any]) -> Told:
    place = member(message, "location", dict)
    at = [place.get(name) for name in ("latitude", "longitude")]
    if any(isinstance(each, bool) or not isinstance(each, int | float | str) for each in at):
        raise Malformed("`location` must have `latitude` and `longitude`")
    named = ", ".join(filter(None, (optional(place, name, str) for name in ("name", "address"))))
    where = ", ".join(str(each) for each in at)
    return f"[location] {named} ({where})" if named else f"[location] {where}", {}


def _contacts(message: dict[str, Any]) -> Told:
    lines = []
    for contact in member(message, "contacts", list):
        if not isinstance(contact, dict):
            raise Malformed("`contacts` must hold objects")
        phones = [each.get("phone") for each in objects(contact, "phones")]
        name = optional(member(contact, "name", dict), "formatted_name", str) or ""
        lines.append(", ".join([name, *(phone for phone in phones if isinstance(phone, str))]))
    return "\n".join(f"[contact] {line}" for line in lines), {}


def _order(message: dict[str, Any]) -> Told:
    order = member(message, "order", dict)
    lines = []
    for item in member(order, "product_items", list):
        if not isinstance(item, dict):
            raise Malformed("`product_items` must hold objects")
        quantity, price = item.get("quantity"), item.get("item_price")
        lines.append(f"{quantity} × {identifier(item, 'product_retailer_id')} at {price} {item.get('currency')}")
    said = optional(order, "text", str)
    return "\n".join([f"[order] {'; '.join(lines)}", *([said] if said else [])]), {
        "catalog": optional(order, "catalog_id", str)
    }


def _media(kind: Literal["image", "audio", "video", "document", "sticker"]) -> Telling:
    def read(message: dict[str, Any]) -> Told:
        media = member(message, kind, dict)
        name, caption = optional(media, "filename", str), optional(media, "caption", str)
        attached = described(
            kind=kind,
            id=identifier(media, "id"),
            mime_type=optional(media, "mime_type", str),
            sha256=optional(media, "sha256", str),
            filename=name,
            voice=optional(media, "voice", bool),
        )
        told: Kind = "voice message" if kind == "audio" and attached.get("voice") else kind
        return unseen(told, name, caption), {"media": attached}

    return read


TEXTS: Mapping[str, Telling] = {
    "text": _text,
    "button": _button,
    "interactive": _interactive,
    "reaction": _reaction,
    "location": _location,
    "contacts": _contacts,
    "order": _order,
    "image": _media("image"),
    "audio": _media("audio"),
    "video": _media("video"),
    "document": _media("document"),
    "sticker": _media("sticker"),
}
"""Kinds that are answered. `system`, `unsupported`, `edit`, `revoke` and what Meta adds later are kept."""
