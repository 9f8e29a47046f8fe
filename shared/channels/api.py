"""What a channel is: how a provider's requests are checked and read, and how a reply is put into its words.

An adapter is one file in this package with one subclass of `Channel`, and nothing has to be registered. Adapters are
pure: no I/O, no clock. The ingress calls `verify`, `greet` and `read`; whoever sends replies calls `render` for the
requests to make and `judge` for what became of one. Everything else about channels (credentials, queueing, duplicates,
keeping what is no message) is the same for all and knows no provider.
"""

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from shared.channels.reading import Malformed
from shared.errors import BadSignature

ADDRESS = "channel://"
"""Before a channel's id, as the `callback_url` of its jobs: their deliveries go back through it."""
S = TypeVar("S", bound=msgspec.Struct)
C = TypeVar("C", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One request of a provider."""

    method: str
    url: str
    """As the provider called it: with the public scheme and host, and the query."""
    headers: Mapping[str, str]
    """Names in lower case; the first of each."""
    query: Mapping[str, str]
    body: bytes
    at_s: float
    """When it came, Unix s."""


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody said."""

    id: str
    """The same however often the provider delivers it; unique within the channel."""
    user: str
    """Who said it; where several people share a conversation, the room, because a conversation has one user."""
    conversation: str
    """Within the channel."""
    text: str
    """What an agent is given. What is no text is told in brackets: `[image] the caption`."""
    details: Mapping[str, Any] = {}
    """Where the reply goes, who speaks, what was attached: the job's metadata, as `channel`."""


class Status(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a message that we sent."""

    message_id: str
    """The provider's."""
    state: Literal["sent", "delivered", "read", "played", "failed"]
    at_us: int | None = None
    recipient: str | None = None
    error: dict[str, Any] | None = None
    details: dict[str, Any] = {}  # msgspec copies an empty default


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What came in and is no message to answer. It is acknowledged, and stored for somebody to look at."""

    reason: str
    """`malformed`, `foreign`, or the provider's own word for what it is."""
    payload: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider is told."""

    body: bytes = b""
    media_type: str = "text/plain"
    status: int = 200


@dataclass(slots=True)
class Reading:
    """Everything of one request. `ignored` counts what is not even worth keeping: our own echoes."""

    messages: list[Inbound] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    ignored: int = 0
    answer: Answer = Answer()

    def keep(self, reason: str, payload: Any) -> None:
        self.kept.append(Kept(reason=reason, payload=payload))

    def malformed(self, error: Malformed, payload: Any) -> None:
        self.keep("malformed", {"fault": str(error), "payload": payload})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """What is to be sent. `details` are those of the message that is answered."""

    text: str
    details: Mapping[str, Any]
    reference: str
    """Ours, echoed by providers that can, so that a status finds its delivery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the provider's API. `body` is JSON, `form` is sent as a form; one of them."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The provider took it, as `message_id`."""

    message_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """It did not.

    `retry`: the same again, after `after_s` where the provider says so. `pause`: nothing goes out from this channel
    until a person, or time, mends it. `template`: only a template may be sent to this user now. `permanent`: never.
    """

    verdict: Literal["retry", "pause", "template", "permanent"]
    code: str
    message: str
    after_s: float | None = None


class Channel(Generic[S, C]):
    """Base of every adapter."""

    kind: ClassVar[str]
    """Name in URLs, settings and books."""
    label: ClassVar[str]
    settings: ClassVar[type[msgspec.Struct]]
    """What of a channel may be shown."""
    credentials: ClassVar[type[msgspec.Struct]]
    """What may not. A field of type list holds the valid values of a secret, newest first: it can be rotated."""
    max_body_bytes: ClassVar[int] = 1 << 20

    def verify(self, hook: Hook, settings: S, credentials: C) -> None:
        """Raises BadSignature for what the provider did not send, or sent too long ago."""
        raise NotImplementedError

    def greet(self, hook: Hook, credentials: C) -> Answer:
        """The answer to a GET, with which some providers verify the URL. Raises BadSignature."""
        raise BadSignature("This channel is not verified by GET.")

    def read(self, hook: Hook, settings: S) -> Reading:
        """Of a verified request. Raises nothing: what cannot be read is kept."""
        raise NotImplementedError

    def render(self, outgoing: Outgoing, settings: S, credentials: C, *, base_url: str | None = None) -> list[Call]:
        """The requests that say it, to be made in this order. `base_url` replaces the provider's."""
        raise NotImplementedError

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Sent | Refused:
        """What an answer of the provider's API means. `headers` have names in lower case."""
        raise NotImplementedError


def matches(given: str, genuine: Iterable[str]) -> bool:
    """Whether `given` is one of the genuine ones; takes as long for a near miss as for any other."""
    found = False
    for one in genuine:
        found |= hmac.compare_digest(given.encode("utf-8", "replace"), one.encode())
    return found


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds; None without one, or with a date."""
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None


def elements(value: Any, name: str, reading: Reading) -> Iterator[dict[str, Any]]:
    """The objects of a list member, which may be absent; what else stands there is kept as malformed."""
    listed = value.get(name)
    if listed is None:
        return
    if not isinstance(listed, list):
        reading.malformed(Malformed(f"`{name}` must be a list"), listed)
        return
    for each in listed:
        if isinstance(each, dict):
            yield each
        else:
            reading.malformed(Malformed(f"`{name}` must hold objects"), each)
