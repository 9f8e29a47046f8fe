"""What a channel is: how a provider's requests are checked and read, and how a reply is put into its words.

An adapter is one file in this package with one subclass of `Channel`, and nothing has to be registered. Adapters are
pure: no I/O, no clock. The ingress calls `verify`, `greet` and `read`; whoever sends replies calls `cut` for the
messages that say one, `render` for the request of each, and `judge` for what became of it. Everything else about
channels (credentials, queueing, duplicates, paces, what may have arrived) is the same for all and knows no provider.
"""

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

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
    """What an agent is given. What is no text is told in brackets: `[location] 52.5, 13.4`, and see `attached`."""
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
    reference: str | None = None
    """Ours, where the provider echoes it."""


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
    """One message that is to be sent. `details` are those of the message that is answered."""

    text: str
    details: Mapping[str, Any]
    reference: str
    """Ours, echoed by providers that can, so that a status finds its delivery."""
    first: bool = True
    """Whether it is the first one of its reply: only that one quotes."""
    template: bool = False
    """Only a template may be sent to this user now."""
    status_url: str | None = None
    """Where the provider may tell what becomes of it."""


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

    `retry`: the same again, after `after_s` where the provider says so. `limited`: the same, and it is nobody's fault:
    the conversation, or with `everyone` the whole channel, is too fast. `pause`: nothing goes out from this channel
    until a person, or time, mends it. `template`: only a template may be sent to this user now. `permanent`: never.
    `unknown`: something between us and the provider answered; the message may have been taken.
    """

    verdict: Literal["retry", "limited", "pause", "template", "permanent", "unknown"]
    code: str
    message: str
    after_s: float | None = None
    everyone: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """One message every `interval_s` in the long run, up to `burst` of them at once. `peer` "" is the whole channel."""

    peer: str
    interval_s: float
    burst: int = 1


class ReplySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of its replies may be set for a channel of any kind."""

    in_doubt: Literal["resend", "hold"] = "resend"
    """A message that may have arrived, because the connection or our process ended before the answer: send it again, or
    leave it to a person (`switchboard deliveries replay`)."""
    per_second: Annotated[float, msgspec.Meta(gt=0, le=1_000)] | None = None
    """Messages of the whole channel; the provider's usual limit when not given."""
    failure_text: str | None = None
    """What a user is told whose message could not be answered; `none`: nothing."""
    refusal_text: str | None = None
    """What a user is told whose message was refused by a limit; `none`: nothing."""


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

    # --- sending ---

    echoes: ClassVar[bool] = False
    """Whether statuses carry our reference: then what may have arrived is known after a while."""
    per_second: ClassVar[float] = 30.0
    """Messages of a whole channel, where its settings do not say."""

    def lacks(self, settings: S, credentials: C) -> str | None:
        """The credential without which nothing can be sent; None: it is there."""
        raise NotImplementedError

    def paces(self, details: Mapping[str, Any], settings: S) -> list[Pace]:
        """How fast messages may follow each other: of the channel, and to whom `details` lead."""
        raise NotImplementedError

    def window_s(self, settings: S) -> int | None:
        """For how long after a user's last message anything but a template may be sent to it; None: always."""
        return None

    def has_template(self, settings: S) -> bool:
        """Whether something can be sent outside `window_s`."""
        return False

    def cut(self, text: str, settings: S, *, template: bool = False) -> list[str]:
        """The texts of the messages that say it, none of them too long. None for a text without words."""
        raise NotImplementedError

    def render(self, outgoing: Outgoing, settings: S, credentials: C, *, base_url: str | None = None) -> Call:
        """The request that sends it. `base_url` replaces the provider's. Raises KeyError for another kind's details."""
        raise NotImplementedError

    def render_working(
        self, details: Mapping[str, Any], settings: S, credentials: C, *, base_url: str | None = None
    ) -> Call | None:
        """The request that shows the user that an answer is being written; None: the provider has none."""
        return None

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Sent | Refused:
        """What an answer of the provider's API means. `headers` have names in lower case."""
        raise NotImplementedError


def whole_channel(own_per_second: float | None, usual: float) -> Pace:
    """The pace of a channel: a tenth of a second's worth at once, so that no second has much more than its share."""
    per_second = own_per_second or usual
    return Pace("", 1 / per_second, max(1, int(per_second / 10)))


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
