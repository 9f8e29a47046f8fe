"""Clocks: leases and due times are Redis's, the ledger's months come from ids that workers make, rows are Postgres's.

A difference does no harm to a job, but a report puts it into another hour, and a token may be refused for its age.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from redis.exceptions import RedisError

from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import APP, Absent, Servers

WARNING_S = 1.0
FAULT_S = 5.0
MEND = "let NTP set the clocks: timedatectl set-ntp true"


async def check_clocks(servers: Servers, now: Callable[[], float] = time.time) -> list[Finding]:
    """How far Redis and Postgres are ahead of this host."""
    ahead_s: dict[str, float] = {}
    with suppress(RedisError, OSError):  # reported by check_redis
        ahead_s["Redis"] = await _ahead_s(lambda: _redis_time_s(servers), now)
    with suppress(Absent):  # reported by check_logins
        ahead_s["Postgres"] = await _ahead_s(lambda: _postgres_time_s(servers), now)
    return judged(ahead_s)


def judged(ahead_s: Mapping[str, float]) -> list[Finding]:
    """`ahead_s` of this host by server; two servers may also disagree with each other."""
    pairs = {f"{name} and this host": difference for name, difference in ahead_s.items()}
    if len(ahead_s) == 2:
        (one, first), (two, second) = ahead_s.items()
        pairs[f"{one} and {two}"] = first - second
    return [_judged(names, abs(difference)) for names, difference in pairs.items()]


def _judged(names: str, difference_s: float) -> Finding:
    what = f"{names} are {difference_s:.2f} s apart"
    if difference_s > FAULT_S:
        return fault("clocks", what, MEND)
    return warning("clocks", what, MEND) if difference_s > WARNING_S else ok("clocks", what)


async def _ahead_s(ask: Callable[[], Awaitable[float]], now: Callable[[], float]) -> float:
    """Against the middle of the question's way there and back; asked twice, the first one warms the connection."""
    await ask()
    before = now()
    there = await ask()
    return there - (before + now()) / 2


async def _redis_time_s(servers: Servers) -> float:
    seconds, micros = await servers.commands.redis.time()
    return int(seconds) + int(micros) / 1e6


async def _postgres_time_s(servers: Servers) -> float:
    return float(await servers.login(APP).fetchval("SELECT extract(epoch FROM clock_timestamp())"))
