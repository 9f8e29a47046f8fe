"""A message as the routes have it, and the short way to it for a body without anything unusual.

`plain_message` reads a body in one pass of msgspec, or leaves it to `ingress.body`, whose rules are the ones that hold
and which says what is wrong. It may leave a valid body; it never takes one that `ingress.body` refuses or reads
differently (tests/ingress/test_message.py compares them).
"""

import json
import re
from typing import Annotated, Any

import msgspec

from shared.config import Settings
from shared.wire import Policy

# Controls, format characters, spaces but the ordinary one: listed, so that they are the same in every Python.
INVISIBLE = (
    r"\u0000-\u001f\u007f-\u00a0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f"
    r"\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
UNPRINTABLE = re.compile(rf"[{INVISIBLE}\ud800-\udfff]")

MAX_ID_CHARS = 128
MAX_BOOK_NAME_CHARS = 64

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]
_BookName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_BOOK_NAME_CHARS)]


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `ingress.body.MessageBody` explains; None: not said."""

    message: str
    conversation_id: _Id | None = None
    user_id: _Id | None = None
    callback_url: str | None = None
    metadata: dict[str, Any] | None = None
    ttl_s: int | None = None
    domain: _BookName | None = None
    feature: _BookName | None = None
    policy: Policy | None = None

    def canonical(self) -> bytes:
        """The same bytes for bodies that mean the same, whatever their spacing and order."""
        said = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


_decode = msgspec.json.Decoder(ChatMessage).decode


def plain_message(raw: bytes, settings: Settings) -> ChatMessage | None:
    """None: it has to be looked at closely."""
    if b"\\" in raw:  # escapes can hide what must be refused, and a quote that is not one
        return None
    try:
        found = _decode(raw)
    except ValueError:  # msgspec's own, or bytes that are not UTF-8
        return None
    return found if _each_name_once(raw, found) and _plain(found, settings) else None


def _each_name_once(raw: bytes, found: ChatMessage) -> bool:
    """Every quote begins or ends a name or a text: one more than was found needs is a name said twice, or a null."""
    texts = (found.message, found.conversation_id, found.user_id, found.domain, found.feature, found.policy)
    names_and_texts = 2 * (len(texts) - texts.count(None)) + (found.ttl_s is not None)
    return raw.count(b'"') == 2 * names_and_texts


def _plain(found: ChatMessage, settings: Settings) -> bool:
    shown = (found.conversation_id, found.user_id, found.domain, found.feature)
    return (
        found.callback_url is None
        and found.metadata is None
        and len(found.message) <= settings.max_message_chars
        and found.message.strip() != ""
        and not UNPRINTABLE.search("".join(filter(None, shown)))
        and (found.ttl_s is None or 1 <= found.ttl_s <= settings.max_ttl_s)
    )
