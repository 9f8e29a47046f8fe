"""Where it was measured: a figure without its machine and versions says little."""

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil
from redis.asyncio import Redis

PACKAGES = ("arq", "redis", "hiredis", "uvloop")


async def describe(redis: Redis, *, fsync: str) -> dict[str, str]:
    """Name → value, for people and for the JSON file."""
    server = await redis.info("server")
    valkey = server.get("valkey_version") or server["redis_version"]
    memory_gib = psutil.virtual_memory().total / 2**30
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()}",
        "load": f"{os.getloadavg()[0]:.1f} when the run began",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        "server": f"{server.get('server_name', 'redis')} {valkey}, append-only file, fsync {fsync}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
