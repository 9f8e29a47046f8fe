"""Whether a server can be trusted with a queue. Asked once, at the start of a process."""

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.errors import ConfigError

MINIMUM_VERSION = (7, 0)
"""Scripts use `#!lua` flags, HRANDFIELD and LPOS."""


async def check_server(redis: Redis, *, production: bool) -> list[str]:
    """What is wrong with the server for a queue: one sentence each, empty when all is well.

    Raises ConfigError for what can never work, and in production for anything that can lose an accepted job.
    """
    try:
        info: dict[str, Any] = await redis.info()
    except (RedisError, OSError) as error:
        raise ConfigError(f"Redis cannot be reached ({error})") from None
    version = tuple(int(part) for part in str(info.get("redis_version", "0.0")).split(".")[:2])
    if version < MINIMUM_VERSION:
        raise ConfigError(f"Redis {info.get('redis_version')} is too old: 7.0 or newer, or Valkey, is needed")
    if info.get("redis_mode") == "cluster":
        raise ConfigError("Redis Cluster is not supported: scripts build keys from job ids; use one primary")
    faults = []
    if info.get("maxmemory_policy") != "noeviction":
        faults.append(
            f"maxmemory-policy is {info.get('maxmemory_policy')}: set it to noeviction, an evicted job is lost"
        )
    if not info.get("aof_enabled"):
        faults.append("appendonly is off: a Redis restart loses accepted jobs; set appendonly yes")
    if production and faults:
        raise ConfigError("; ".join(faults))
    return faults
