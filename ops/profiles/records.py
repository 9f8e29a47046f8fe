"""What is known of a user, as callers are shown it."""

from typing import Any

import msgspec

from shared.jobs import rfc3339


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a profile."""

    value: str | bool
    by: str
    """`user`: found in what they said. Else the key, or the person at the command line, that wrote it."""
    at_us: int
    sources: list[str] = []
    """Ids of the messages that say so."""

    def resource(self) -> dict[str, Any]:
        return {"value": self.value, "by": self.by, "at": rfc3339(self.at_us), "sources": self.sources}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str
    user_id: str
    """As callers name their user."""
    entries: dict[str, Entry]

    def resource(self) -> dict[str, Any]:
        return {
            "object": "profile",
            "tenant": self.tenant,
            "user_id": self.user_id,
            "entries": {name: entry.resource() for name, entry in sorted(self.entries.items())},
        }


class UserFact(msgspec.Struct, frozen=True, kw_only=True):
    """What a user told, and when it held."""

    id: str
    tenant: str
    user_id: str
    topic: str
    """One fact of a topic holds at a time."""
    text: str
    conversation_id: str | None
    """Where it was said; null: it was written here."""
    sources: list[str]
    """Ids of the messages that say so."""
    told_by: str
    """`user`: found in what they said. Else the key, or the person at the command line, that wrote it."""
    valid_from_us: int
    valid_to_us: int | None
    """Null: it holds."""
    superseded_by: str | None
    """The fact that closed it."""

    def resource(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "fact",
            "tenant": self.tenant,
            "user_id": self.user_id,
            "topic": self.topic,
            "text": self.text,
            "conversation_id": self.conversation_id,
            "sources": self.sources,
            "told_by": self.told_by,
            "valid_from": rfc3339(self.valid_from_us),
            "valid_to": None if self.valid_to_us is None else rfc3339(self.valid_to_us),
            "superseded_by": self.superseded_by,
        }
