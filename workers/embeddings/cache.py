"""Vectors of texts that were embedded a moment ago: the same text costs nothing a second time.

One per process, bounded in bytes; the ones used longest ago make room. A vector is a function of its text alone, so it
serves all tenants: nobody sees whose it was. Nothing stays longer than `KEPT_S`, for the sake of those who are erased.
"""

import hashlib
import time
from collections import OrderedDict

from workers.embeddings.api import Vector

KEPT_S = 600.0
_ENTRY_BYTES = 300
"""What an entry takes beside its numbers."""


class VectorCache:
    """`max_bytes` 0 keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, tuple[float, Vector]] = OrderedDict()

    def get(self, model: str, text: str) -> Vector | None:
        key = _key(model, text)
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept[0] < time.monotonic():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def put(self, model: str, text: str, vector: Vector) -> None:
        key = _key(model, text)
        if key in self._kept:
            self._drop(key)
        self._kept[key] = (time.monotonic() + KEPT_S, vector)
        self._bytes += _size(vector)
        while self._kept and (self._bytes > self._max_bytes or self._oldest_is_over()):
            self._drop(next(iter(self._kept)))

    def _oldest_is_over(self) -> bool:
        return next(iter(self._kept.values()))[0] < time.monotonic()

    def _drop(self, key: bytes) -> None:
        _, vector = self._kept.pop(key)
        self._bytes -= _size(vector)


def _key(model: str, text: str) -> bytes:
    return hashlib.sha256(f"{model}\0{text}".encode(errors="surrogatepass")).digest()


def _size(vector: Vector) -> int:
    return 4 * len(vector) + _ENTRY_BYTES
