"""What comes with a message and cannot be read: told in words, and that it was not seen.

Nothing is fetched. A model that is told `[image]` describes one; told that it cannot see it, it says so or asks. The
words are part of the message, so the history, a reader of it and every model have them.
"""

from collections.abc import Mapping
from typing import Literal

Kind = Literal["image", "sticker", "video", "animation", "voice message", "audio", "document", "contact card"]
_WHY_NOT: Mapping[Kind, str] = {
    "image": "cannot see",
    "sticker": "cannot see",
    "video": "cannot see",
    "animation": "cannot see",
    "voice message": "cannot hear",
    "audio": "cannot hear",
    "document": "cannot open",
    "contact card": "cannot open",
}
MAX_NAME_CHARS = 200


def unseen(kind: Kind, name: str | None = None, caption: str | None = None) -> str:
    """`[document that you cannot open: bill.pdf] Is this right?`"""
    named = f": {' '.join(name.split())[:MAX_NAME_CHARS]}" if name and name.strip() else ""
    told = f"[{kind} that you {_WHY_NOT[kind]}{named}]"
    return f"{told} {caption}" if caption and caption.strip() else told


def kind_of_file(mime_type: object) -> Kind:
    """Of whatever stands where a MIME type should."""
    named = mime_type.strip().lower() if isinstance(mime_type, str) else ""
    if named.startswith(("text/vcard", "text/x-vcard")):
        return "contact card"
    match named.partition("/")[0]:
        case "image" | "video" | "audio" as kind:
            return kind
        case _:
            return "document"
