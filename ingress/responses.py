"""The shapes of success: JSON, and a job as it is shown to its caller."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingress.answering import Answering
from shared.jobs import JobRecord

POLL_AFTER_S = 1
"""`Retry-After` of a job that has not ended."""


class Encoded(Response):
    """JSON that is encoded already, with headers of ours: where it can it leaves in one piece."""

    background = None

    def __init__(self, encoded: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.status_code, self._encoded, self._named = status, encoded, headers
        self.body = encoded

    @cached_property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]  # asked by few, changed by fewer
        made = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._named.items()]
        return [*made, (b"content-length", b"%d" % len(self._encoded)), (b"content-type", b"application/json")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        untouched = "raw_headers" not in self.__dict__
        if not (untouched and isinstance(send, Answering) and self.whole(send)):
            await super().__call__(scope, receive, send)

    def whole(self, answering: Answering) -> bool:
        """Send it in one piece; False: nothing was done."""
        return answering.whole(self.status_code, self._head(), self._encoded)

    def _head(self) -> str:
        lines = "".join([f"{name}: {value}\r\n" for name, value in self._named.items()])
        return f"{lines}content-length: {len(self._encoded)}\r\ncontent-type: application/json\r\n"


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Encoded(msgspec.json.encode(body), status, headers or {})


def job_response(
    record: JobRecord, status: int = 200, headers: Mapping[str, str] | None = None, **extra: str
) -> Encoded:
    """The job resource and `extra` members; says when to ask again while the job has not ended."""
    waiting = {} if record.over else {"retry-after": str(POLL_AFTER_S)}
    all_headers = {"cache-control": "no-store", **waiting, **(headers or {})}
    shown = msgspec.json.encode(record.resource())
    if extra:
        shown = shown[:-1] + b"," + msgspec.json.encode(extra)[1:]
    return Encoded(shown, status, all_headers)


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}"
