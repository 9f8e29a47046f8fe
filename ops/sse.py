"""Read server-sent events from the lines of an HTTP response (WHATWG HTML §9.2), as far as our own streams use them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    id: str
    type: str
    data: str


def events(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """The complete events; comments are dropped, and so is an event the connection cut short."""
    last_id, kind, data = "", "message", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerSentEvent(last_id, kind, "\n".join(data))
            kind, data = "message", []
        elif name == "id":
            last_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
