"""The shapes of success: JSON, and a job as it is shown to its caller."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from shared.jobs import JobRecord

POLL_AFTER_S = 1
"""`Retry-After` of a job that has not ended."""


class _Json(Response):
    """JSON that is encoded already: Starlette's own start looks for headers that ours never have."""

    def __init__(self, encoded: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.status_code, self.body, self.background = status, encoded, None
        self.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self.raw_headers += ((b"content-length", b"%d" % len(encoded)), (b"content-type", b"application/json"))


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return _Json(msgspec.json.encode(body), status, headers or {})


def job_response(
    record: JobRecord, status: int = 200, headers: Mapping[str, str] | None = None, **extra: str
) -> Response:
    """The job resource and `extra` members; says when to ask again while the job has not ended."""
    waiting = {} if record.over else {"retry-after": str(POLL_AFTER_S)}
    all_headers = {"cache-control": "no-store", **waiting, **(headers or {})}
    return json_response({**record.resource(), **extra}, status, all_headers)


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}"
