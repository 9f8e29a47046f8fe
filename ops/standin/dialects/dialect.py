"""What an endpoint needs of a wire format, and the pieces that every format is made of."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec

from ops.standin import answer as answers
from ops.standin.answer import Answer
from ops.standin.ask import Ask, Provider, Unreadable
from ops.standin.behaviour import Finish, Rule
from ops.standin.delivery import Frame

encode = msgspec.json.Encoder().encode

T = TypeVar("T")


class Ids(NamedTuple):
    """Names of one exchange. `call_id` is the id of the answer; the others of its parts begin with `unique`."""

    call_id: str
    request_id: str
    unique: str
    created_s: int

    @classmethod
    def new(cls, prefix: str) -> "Ids":
        unique = secrets.token_hex(12)
        return cls(f"{prefix}{unique}", f"req_{unique}", unique, int(time.time()))


class Dialect(ABC):
    provider: ClassVar[Provider]
    operation: ClassVar[str]
    id_prefix: ClassVar[str]
    request_id_header: ClassVar[bytes]

    @abstractmethod
    def read(self, body: bytes) -> Ask:
        """Raises Unreadable where the provider would answer 400."""

    def answer(self, ask: Ask, rule: Rule, finish: Finish | None) -> Answer:
        return answers.compose(ask, rule, finish)

    @abstractmethod
    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> bytes:
        """The JSON body of an answer that is not streamed."""

    @abstractmethod
    def frames(self, ask: Ask, answer: Answer, ids: Ids) -> Iterator[Frame]:
        """The same answer as server-sent events; the last frame is final."""

    @abstractmethod
    def error(self, status: int, message: str, ids: Ids, reason: str | None) -> bytes:
        """The JSON body of an error; `reason` is the provider's fine-grained code, when it has one."""

    @abstractmethod
    def stream_error(self, ids: Ids) -> bytes:
        """The event that tells of a failure within a stream."""

    @abstractmethod
    def broken_event(self) -> bytes:
        """An event whose data is not JSON."""


class Counting(Dialect):
    """A dialect that also tells the input tokens of a request without answering it."""

    @abstractmethod
    def counted(self, ask: Ask) -> bytes: ...


class ContentPart(msgspec.Struct):
    """A part of a message. Only text counts here: an image or a file is read as nothing."""

    type: str
    text: str | None = None


def text_of(content: str | list[ContentPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content if part.text)


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"The request cannot be read: {error}") from error


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event; `name` is its `event:` line."""
    head = b"data: " if name is None else b"event: %b\ndata: " % name.encode()
    return b"%b%b\n\n" % (head, encode(data))
