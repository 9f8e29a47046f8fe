"""JSON in place of arq's pickle: whoever can write to Redis must not be able to run code here."""

from typing import Any

import msgspec


def _plain(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"error": type(value).__name__, "message": str(value)}
    raise NotImplementedError(f"{type(value).__name__} is not JSON")  # msgspec's own protocol for «cannot»


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def encode(value: dict[str, Any]) -> bytes:
    """arq's `job_serializer`. An exception becomes `{"error": class name, "message": text}`."""
    return _encoder.encode(value)


def decode(raw: bytes) -> dict[str, Any]:
    """arq's `job_deserializer`."""
    value: dict[str, Any] = msgspec.json.decode(raw)
    return value
