"""What a claimed delivery says of the reply that it is, as `reply_state` in SQL gives it."""

from typing import Any, Literal

import msgspec

Form = Literal["text", "template"]


class ChannelRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    settings: dict[str, Any]
    sealed: str
    """Its credentials, encrypted."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a reply."""

    part: int
    """From 1 on."""
    form: Form
    text: str
    state: Literal["waiting", "sending", "unknown", "sent"] = "waiting"
    resent: int = 0
    """How often it was sent again though it may have arrived."""


class ReplyState(msgspec.Struct, frozen=True, kw_only=True):
    channel: ChannelRow | None
    """None: it was removed."""
    parts: list[Part]
    """As an earlier attempt cut it; empty before the first one."""
    put_off: int
    """How often in a row it had to wait for a limit, or for the channel to be mended."""
    put_off_since_us: int | None
    heard_us: int | None
    """When its user last wrote, as far as history knows, Unix µs."""
