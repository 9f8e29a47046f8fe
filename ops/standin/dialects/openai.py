"""What OpenAI's endpoints have in common: errors, request ids, and the shape of a stream's failure."""

from typing import Any, ClassVar, Final

from ops.standin.ask import Provider
from ops.standin.dialects.dialect import Dialect, Ids, encode, event

SERVER_ERROR = "The server had an error while processing your request."
_ERRORS: Final = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
"""HTTP status → (`type`, `code`); others below 500 are `invalid_request_error`, from 500 on `server_error`."""


class OpenAIDialect(Dialect):
    provider: ClassVar[Provider] = "openai"
    request_id_header = b"x-request-id"

    def error(self, status: int, message: str, ids: Ids, reason: str | None) -> bytes:
        return encode({"error": _error(status, message, reason)})

    def stream_error(self, ids: Ids) -> bytes:
        return event({"error": _error(500, SERVER_ERROR, None)})

    def broken_event(self) -> bytes:
        return b'data: {"id": "broken", "choices": [{"delta"\n\n'


def _error(status: int, message: str, reason: str | None) -> dict[str, Any]:
    kind, code = _ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    if reason == "insufficient_quota":
        kind = reason  # a spent budget is the one 429 with a type of its own
    return {"message": message, "type": kind, "param": None, "code": reason or code}
