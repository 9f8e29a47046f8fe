"""What the backends must be before the processes start: reachable, migrated, and with the development key.

`switchboard dev` calls this with embedded and with given backends alike, `switchboard migrate` for a deployment.
"""

import asyncio
import hashlib

import asyncpg
import redis

from ops.stack.environment import DEVELOPMENT_KEY
from ops.stack.process import StackError
from sql import queries
from sql.migrate import MigrationError, migrate

CONNECT_TIMEOUT_S = 5.0


def check_redis(url: str) -> None:
    """Raise StackError in one line when Redis does not answer."""
    with redis.Redis.from_url(url, socket_timeout=CONNECT_TIMEOUT_S) as client:
        try:
            client.ping()
        except redis.RedisError as error:
            raise StackError(f"Redis does not answer: {error}") from None


def apply_migrations(owner_dsn: str) -> list[str]:
    """The names applied; raises StackError in one line."""
    try:
        return asyncio.run(migrate(owner_dsn))
    except MigrationError as error:
        raise StackError(f"PostgreSQL: {error}") from error


def seed_development_key(owner_dsn: str) -> None:
    """Give the tenant `dev` the key that only the development stack knows."""
    try:
        asyncio.run(_seed(owner_dsn))
    except (asyncpg.PostgresError, OSError) as error:
        raise StackError(f"PostgreSQL: the development key cannot be stored: {error}") from error


async def _seed(owner_dsn: str) -> None:
    connection = await asyncpg.connect(owner_dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        digest = hashlib.sha256(DEVELOPMENT_KEY.encode()).hexdigest()
        await connection.execute(queries["upsert_development_key"], digest)
    finally:
        await connection.close()
