"""Every benchmark by name, and a run of some of them on a Valkey of their own."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from redis.asyncio import Redis

from benchmarks import machine
from benchmarks.capacity import fleet, inflight
from benchmarks.crash import sigkill, sigterm
from benchmarks.fairness import fairness
from benchmarks.figure import Figure
from benchmarks.limits import limits
from benchmarks.money import money
from benchmarks.pickup import idle_pickup
from benchmarks.product.accept import accept
from benchmarks.product.hanging import hanging
from benchmarks.product.turn import latency, turns
from benchmarks.product.webhook import webhook
from benchmarks.rig import Rig
from benchmarks.roundtrips import roundtrips
from benchmarks.scale import Scale
from benchmarks.throughput import noop, sleep50
from ops.stack.directory import DataDirectory
from ops.stack.valkey import start_valkey

BENCHMARKS: Mapping[str, Callable[[Rig], Awaitable[list[Figure]]]] = {
    "roundtrips": roundtrips,
    "limits": limits,
    "idle_pickup": idle_pickup,
    "noop": noop,
    "sleep50": sleep50,
    "inflight": inflight,
    "fleet": fleet,
    "fairness": fairness,
    "sigkill": sigkill,
    "sigterm": sigterm,
    "accept": accept,
    "latency": latency,
    "turns": turns,
    "webhook": webhook,
    "money": money,
    "hanging": hanging,
}


@asynccontextmanager
async def open_rig(scale: Scale, *, fsync: str) -> AsyncIterator[Rig]:
    """A private Valkey that is gone afterwards, with all it wrote."""
    with _folder() as folder, DataDirectory(folder) as directory:
        valkey = start_valkey(directory, settings={"appendfsync": fsync})
        try:
            async with Redis.from_url(valkey.url()) as redis:
                yield Rig(directory, valkey, redis, scale)
        finally:
            valkey.child.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="switchboard-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # for root: its servers run as another user
        yield folder


async def run(
    names: Sequence[str], scale: Scale, *, fsync: str, progress: Callable[[str], None]
) -> tuple[dict[str, str], dict[str, list[Figure]]]:
    """What it ran on, and each benchmark's figures."""
    async with open_rig(scale, fsync=fsync) as rig:
        where = await machine.describe(rig.redis, fsync=fsync)
        figures = {}
        for name in names:
            progress(name)
            figures[name] = await BENCHMARKS[name](rig)
        return where, figures
