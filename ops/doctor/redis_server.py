"""Redis: is it there, is it new enough, does it keep what it was given, has it room?

INFO answers most of it, also on managed servers that refuse CONFIG.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from redis.exceptions import RedisError

from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import Servers
from shared import keys
from shared.redis import Commands, connect
from shared.redis.check import MINIMUM_VERSION

CLOSES_AT = 0.8
"""Of maxmemory: admission answers 503 beyond it (ingress/pressure.py)."""
CROWDED_AT = 0.6
PROBE_TTL_S = 10
CLI = 'redis-cli -u "$REDIS_URL"'

Info = Mapping[str, Any]


async def check_redis(servers: Servers) -> list[Finding]:
    try:
        info: Info = await servers.commands.redis.info()
    except (RedisError, OSError) as error:
        return [fault("redis.reachable", f"Redis cannot be reached: {error}", "start it, or mend REDIS_URL")]
    appendfsync = await _appendfsync(servers)
    production = servers.settings.environment != "development"
    return [
        *_identity(info),
        *_durability(info, appendfsync, production=production),
        *_memory(info),
        await _takes_writes(servers),
    ]


def _identity(info: Info) -> Iterator[Finding]:
    name = str(info.get("server_name", "redis")).capitalize()
    version = str(info.get("valkey_version") or info.get("redis_version", "0.0"))
    compatible = tuple(int(part) for part in str(info.get("redis_version", "0.0")).split(".")[:2])
    if compatible < MINIMUM_VERSION:
        yield fault("redis.version", f"{name} {version} is too old", "use Redis 7.0 or newer, or Valkey")
    else:
        yield ok("redis.version", f"{name} {version}")
    if info.get("redis_mode") == "cluster":
        yield fault("redis.mode", "Redis Cluster is not supported", "use one primary, with replicas")
    if info.get("role") != "master":
        yield fault("redis.role", "this is a replica, which takes no writes", "let REDIS_URL lead to the primary")


def _durability(info: Info, appendfsync: str | None, *, production: bool) -> Iterator[Finding]:
    policy = info.get("maxmemory_policy")
    if policy == "noeviction":
        yield ok("redis.eviction", "nothing is evicted")
    else:
        mend = f"{CLI} CONFIG SET maxmemory-policy noeviction"
        yield fault("redis.eviction", f"maxmemory-policy is {policy}: an evicted job is lost", mend)
    if not info.get("aof_enabled"):
        mend = f"{CLI} CONFIG SET appendonly yes"
        yield fault("redis.appendonly", "appendonly is off: a restart loses accepted jobs", mend)
        return
    if info.get("aof_last_write_status", "ok") != "ok":
        yield fault("redis.disk", "the append-only file cannot be written", "make room on the disk of Redis")
    yield _fsync(appendfsync, production=production)


def _fsync(appendfsync: str | None, *, production: bool) -> Finding:
    if appendfsync is None:
        what = "CONFIG is refused here: whether each write reaches the disk cannot be seen"
        return warning("redis.appendfsync", what, "ask for `appendfsync always` where this Redis is configured")
    if appendfsync == "always":
        return ok("redis.appendfsync", "each write is on disk before it is answered")
    what = f"appendfsync is {appendfsync}: the machine of Redis can lose " + (
        "the last second of accepted jobs" if appendfsync == "everysec" else "accepted jobs when it stops"
    )
    if not production and appendfsync == "everysec":
        return ok("redis.appendfsync", what)
    return warning("redis.appendfsync", what, f"{CLI} CONFIG SET appendfsync always")


def _memory(info: Info) -> Iterator[Finding]:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        what = f"maxmemory is not set ({_mb(used)} used): admission cannot close before the machine is full"
        yield warning("redis.memory", what, f"{CLI} CONFIG SET maxmemory 2gb")
        return
    what = f"{_mb(used)} of {_mb(limit)} used"
    mend = f"{CLI} CONFIG SET maxmemory {limit // 1_000_000 * 2}mb"
    if used > CLOSES_AT * limit:
        yield fault("redis.memory", f"{what}: messages are refused with 503", mend)
    elif used > CROWDED_AT * limit:
        yield warning("redis.memory", f"{what}: messages are refused from {CLOSES_AT:.0%} on", mend)
    else:
        yield ok("redis.memory", what)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:.0f} MB"


async def _appendfsync(servers: Servers) -> str | None:
    try:
        answer: dict[str, str] = await servers.commands.redis.config_get("appendfsync")
    except RedisError:
        return None
    return answer.get("appendfsync")


async def _takes_writes(servers: Servers) -> Finding:
    try:
        await servers.commands.redis.set(keys.PROBE, "1", ex=PROBE_TTL_S)
    except (RedisError, OSError) as error:
        return fault("redis.writes", f"a write is refused: {error}", "see the findings above")
    return ok("redis.writes", "takes writes")


async def check_cache(servers: Servers) -> list[Finding]:
    """The cache's own server, where there is one: what it holds may go at any time."""
    address, name = servers.settings.cache_redis_url, "redis.cache"
    if address is None:
        return [ok(name, "kept answers stand beside the queue, within SWITCHBOARD_CACHE_MAX_BYTES")]
    cache = Commands(connect(address, max_connections=1))
    try:
        await cache.redis.set(keys.PROBE, "1", ex=PROBE_TTL_S)
    except (RedisError, OSError) as error:
        what = f"the server of SWITCHBOARD_CACHE_REDIS_URL takes no writes, every question is asked of a model: {error}"
        return [warning(name, what, "start it, or mend SWITCHBOARD_CACHE_REDIS_URL")]
    finally:
        await cache.aclose()
    return [ok(name, "the cache has a server of its own, which takes writes")]
