"""What both provider SDKs send their requests through: one client per provider and process.

Timeouts: `CONNECT_S` to connect, `idle_timeout_s` between two pieces of an answer; the bound of the whole call is the
caller's (`sse.read`). There is no limit on connections: how many calls run at once is the worker's decision.
"""

import hashlib

import httpx2

from workers.models.transport import ModelTransport

CONNECT_S = 5.0
_MAX_USER_CHARS = 64


def open_client(idle_timeout_s: float) -> httpx2.AsyncClient:
    """Mounted below httpx2's own routing, so that HTTPS_PROXY and NO_PROXY keep working (through httpx2's pool)."""
    return httpx2.AsyncClient(
        mounts={"all://": ModelTransport()},
        timeout=httpx2.Timeout(idle_timeout_s, connect=CONNECT_S),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30.0),
        headers={"accept-encoding": "identity"},  # a compressed stream arrives late and costs CPU
    )


def end_user(user: str) -> str:
    """An end-user id the providers take: at most 64 characters, a longer one becomes its SHA-256."""
    return user if len(user) <= _MAX_USER_CHARS else hashlib.sha256(user.encode()).hexdigest()
