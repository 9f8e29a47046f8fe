"""redis-py's client as we want it: bounded pool, bounded waits, nothing sent twice."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

COMMAND_TIMEOUT_S = 5.0


def connect(url: str, *, max_connections: int = 16, timeout_s: float | None = COMMAND_TIMEOUT_S) -> Redis:
    """A client on its own pool. `timeout_s` must exceed the longest blocking command issued through it."""
    tcp_only = {} if url.startswith("unix") else {"socket_keepalive": True}
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=COMMAND_TIMEOUT_S,
        socket_timeout=timeout_s,
        socket_connect_timeout=2.0,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),  # redis-py would resend a script whose first answer was lost
        **tcp_only,
    )
    return Redis(connection_pool=pool)
