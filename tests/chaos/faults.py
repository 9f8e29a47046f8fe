"""The faults: one small class each. `strike` returns when the effect was seen and is over.

`attempt_cost` is how many attempts one stroke may cost a job. An orderly end and whatever happens to Postgres cost
none: a deploy is no attempt, and turns wait for their database.
"""

import asyncio
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Protocol

from tests.chaos.backends import Backends
from tests.chaos.fleet import Fleet, Process
from tests.chaos.link import Link
from tests.chaos.patience import holds, until

NOTICED_S = 30.0
TRAFFIC_S = 5.0
"""How long to wait for bytes that come only when there is work."""


@dataclass(frozen=True)
class Site:
    """What faults can be done to."""

    backends: Backends
    fleet: Fleet
    lease_s: float


class Fault(Protocol):
    attempt_cost: ClassVar[int]

    async def strike(self, site: Site, rng: random.Random) -> None: ...


class KillWorker:
    """SIGKILL: it says nothing to anybody."""

    attempt_cost: ClassVar[int] = 1

    async def strike(self, site: Site, rng: random.Random) -> None:
        async with site.fleet.borrow(rng) as worker:
            await _end(worker, signal.SIGKILL, -signal.SIGKILL)


class TerminateWorker:
    """SIGTERM, as in a deploy: it drains, hands back the rest and exits with 0."""

    attempt_cost: ClassVar[int] = 0

    async def strike(self, site: Site, rng: random.Random) -> None:
        async with site.fleet.borrow(rng) as worker:
            await _end(worker, signal.SIGTERM, 0)


class FreezeWorker:
    """SIGSTOP until its lease is over and its jobs run elsewhere, then SIGCONT: it goes on where it was."""

    attempt_cost: ClassVar[int] = 1

    async def strike(self, site: Site, rng: random.Random) -> None:
        async with site.fleet.borrow(rng) as worker:
            worker.signal(signal.SIGSTOP)
            await asyncio.sleep(site.lease_s * rng.uniform(1.2, 2.5))
            before = worker.redis.answered
            worker.signal(signal.SIGCONT)
            await until(lambda: worker.redis.answered > before, NOTICED_S, f"{worker.name} is awake")


class KillRedis:
    """SIGKILL and a restart on the same port and data."""

    attempt_cost: ClassVar[int] = 1

    async def strike(self, site: Site, rng: random.Random) -> None:
        before = _answered(site.fleet.workers)
        await site.backends.kill_redis()
        await asyncio.sleep(rng.uniform(0, site.lease_s * 1.5))
        await site.backends.start_redis()
        await until(lambda: _answered(site.fleet.workers) > before, NOTICED_S, "a worker is back in Redis")


class RestartPostgres:
    """A fast shutdown or a crash, every other time, and a restart on the same data."""

    attempt_cost: ClassVar[int] = 0

    async def strike(self, site: Site, rng: random.Random) -> None:
        await site.backends.stop_postgres(crash=rng.random() < 0.5)
        await asyncio.sleep(rng.uniform(0, 1))
        await site.backends.start_postgres()


class _LinkFault:
    """A fault of one process's connections to one server."""

    server: ClassVar[Literal["redis", "postgres"]]

    async def strike(self, site: Site, rng: random.Random) -> None:
        among = site.fleet.processes if self.server == "redis" else site.fleet.workers
        async with site.fleet.borrow(rng, among=among) as process:
            link: Link = getattr(process, self.server)
            await self.damage(link, site, rng)
            before = link.answered
            await holds(lambda: link.answered > before, TRAFFIC_S)

    async def damage(self, link: Link, site: Site, rng: random.Random) -> None:
        raise NotImplementedError


class _Cut(_LinkFault):
    async def damage(self, link: Link, site: Site, rng: random.Random) -> None:
        link.cut()


class _Stall(_LinkFault):
    """A network that carries nothing for longer than a lease, and then everything it held back."""

    async def damage(self, link: Link, site: Site, rng: random.Random) -> None:
        with link.stalled():
            await asyncio.sleep(site.lease_s * rng.uniform(1.2, 2.5))


class _Swallow(_LinkFault):
    """Requests arrive and are carried out, their answers are lost; then the connections break."""

    async def damage(self, link: Link, site: Site, rng: random.Random) -> None:
        lost = link.swallowed
        with link.swallowing():
            await holds(lambda: link.swallowed > lost, TRAFFIC_S)
            await asyncio.sleep(rng.uniform(0, 0.1))


class CutRedis(_Cut):
    server = "redis"
    attempt_cost: ClassVar[int] = 1


class StallRedis(_Stall):
    server = "redis"
    attempt_cost: ClassVar[int] = 1


class SwallowRedis(_Swallow):
    server = "redis"
    attempt_cost: ClassVar[int] = 1


class CutPostgres(_Cut):
    server = "postgres"
    attempt_cost: ClassVar[int] = 0


class StallPostgres(_Stall):
    server = "postgres"
    attempt_cost: ClassVar[int] = 0


class SwallowPostgres(_Swallow):
    server = "postgres"
    attempt_cost: ClassVar[int] = 0


KINDS: Final[dict[str, Fault]] = {
    "kill worker": KillWorker(),
    "terminate worker": TerminateWorker(),
    "freeze worker": FreezeWorker(),
    "kill redis": KillRedis(),
    "restart postgres": RestartPostgres(),
    "cut redis": CutRedis(),
    "stall redis": StallRedis(),
    "swallow redis": SwallowRedis(),
    "cut postgres": CutPostgres(),
    "stall postgres": StallPostgres(),
    "swallow postgres": SwallowPostgres(),
}


async def _end(worker: Process, number: signal.Signals, code: int) -> None:
    """Ends it and waits until it has ended; the platform starts another."""
    ended = len(worker.lives)
    worker.asked_to_exit = code
    worker.signal(number)
    await until(lambda: len(worker.lives) > ended, NOTICED_S, f"{worker.name} has ended")


def _answered(workers: Sequence[Process]) -> int:
    return sum(worker.redis.answered for worker in workers)
