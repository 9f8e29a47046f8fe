"""A channel as the books have it, and as people are shown it. Times are Unix µs."""

from typing import Any

import msgspec

from shared.jobs import rfc3339


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Why no reply goes out: the provider refuses the channel as a whole, or it cannot be used as it is."""

    code: str
    message: str
    status: int | None = None
    since_us: int
    until_us: int | None
    """Then one reply tries; a change of the channel, or `resume`, has all of them tried at once."""

    def resource(self) -> dict[str, Any]:
        until = None if self.until_us is None else rfc3339(self.until_us)
        shown = {"code": self.code, "message": self.message, "status": self.status}
        return {**shown, "since_at": rfc3339(self.since_us), "until_at": until}


class ChannelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A messenger through which a tenant's users write."""

    id: str
    tenant: str
    kind: str
    name: str
    agent: str
    """Who answers."""
    domain: str | None
    """For the books, of messages that come through it."""
    feature: str | None
    settings: dict[str, Any]
    credentials: dict[str, int]
    """Which there are, and how many values of each are valid; never the values."""
    version: int
    """Rises by one with every change."""
    created_us: int
    updated_us: int
    paused: Pause | None = None

    def resource(self) -> dict[str, Any]:
        fields = msgspec.to_builtins(self)
        fields["paused"] = None if self.paused is None else self.paused.resource()
        shown: dict[str, Any] = {"id": fields.pop("id"), "object": "channel"}
        for name, value in fields.items():
            if name.endswith("_us"):
                shown[f"{name[:-3]}_at"] = rfc3339(value)
            else:
                shown[name] = value
        return {**shown, "webhook": f"/v1/channels/{self.id}/webhook"}


class KeptRow(msgspec.Struct, frozen=True, kw_only=True):
    """What came through a channel and is no message to answer."""

    id: str
    channel: str
    reason: str
    """`malformed`, `foreign`, or the provider's own word for it."""
    payload: Any
    times: int
    """How often it came."""
    received_us: int
    """Last."""

    def resource(self) -> dict[str, Any]:
        fields = msgspec.to_builtins(self)
        received_us = fields.pop("received_us")
        return {"id": fields.pop("id"), "object": "inbound_kept", **fields, "received_at": rfc3339(received_us)}
