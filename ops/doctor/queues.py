"""Queue health: does anybody work, does anything wait too long, and has anything been left behind?"""

from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import OPS, Servers
from ops.queues import QueueStats, read_stats
from shared import keys
from shared.db import jsonb
from sql import queries
from workers.maintenance.ends import UNREADABLE

ENDS_WAITING = 1_000
"""Ends of never-started jobs on their way to Postgres; workers take them within seconds."""
OVERDUE_MS = 10_000
"""After its end a lease is reaped by the next claim of any worker."""
SCANNED = 20_000
"""Redis keys looked at for calls that nobody settled: a bounded look, not a census."""


async def check_queues(servers: Servers) -> list[Finding]:
    settings = servers.settings
    stats = await read_stats(servers.commands, servers.queues(), slots_per_worker=settings.worker_concurrency)
    found = []
    for one in stats:
        found += [_workers(one), _waiting(one, settings.ttl_s), await _leases(servers, one)]
    return found


def _workers(one: QueueStats) -> Finding:
    name, mend = f"queue.{one.queue}.workers", f"switchboard worker --queue {one.queue}"
    if one.live_workers:
        return ok(name, f"{one.live_workers} of {one.desired_workers} wanted, {one.in_flight} jobs in flight")
    known = max(one.depth, one.due) + one.delayed + one.in_flight
    return fault(name, f"no worker, and {known} jobs wait", mend) if known else warning(name, "no worker", mend)


def _waiting(one: QueueStats, ttl_s: int) -> Finding:
    name, mend = f"queue.{one.queue}.waiting", f"start more workers: {one.desired_workers} would be busy"
    what = f"{one.due} jobs could start now, the oldest for {one.oldest_age_s:.1f} s; after {ttl_s} s they expire"
    return warning(name, what, mend) if one.oldest_age_s > ttl_s / 2 else ok(name, what)


async def _leases(servers: Servers, one: QueueStats) -> Finding:
    name, run = f"queue.{one.queue}.leases", servers.commands.run
    seconds, micros = await run("TIME")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    overdue = await run("ZCOUNT", keys.leases(one.queue), "-inf", now_ms - OVERDUE_MS)
    if overdue:
        what = f"{overdue} workers are gone for more than {OVERDUE_MS // 1000} s and their jobs were not taken over"
        return fault(name, what, f"switchboard worker --queue {one.queue}")
    return ok(name, "no job is held by a worker that is gone")


async def check_dead_jobs(servers: Servers) -> list[Finding]:
    count = int(await servers.login(OPS).fetchval(queries["count_dead_jobs"], jsonb({"disposition": "open"})))
    if count:
        return [warning("jobs.dead", f"{count} dead jobs that nobody has dealt with", "switchboard dead list")]
    return [ok("jobs.dead", "no open dead jobs")]


async def check_ends(servers: Servers) -> list[Finding]:
    waiting, unreadable = [int(await servers.commands.run("XLEN", key)) for key in (keys.ENDED, UNREADABLE)]
    found = []
    if waiting > ENDS_WAITING:
        what = f"{waiting} ends of never-started jobs are not in Postgres yet"
        found.append(warning("jobs.ends", what, "start a worker, and see that Postgres answers it"))
    else:
        found.append(ok("jobs.ends", f"{waiting} ends of never-started jobs on their way to Postgres"))
    if unreadable:
        mend = f'redis-cli -u "$REDIS_URL" XRANGE {UNREADABLE} - + COUNT 1'
        found.append(warning("jobs.ends_unreadable", f"{unreadable} ends could not be written", mend))
    return found


async def check_calls(servers: Servers) -> list[Finding]:
    """Ledger rows in Redis whose job Redis no longer knows: nobody will ever post them."""
    redis = servers.commands.redis
    cursor, looked_at, orphans = 0, 0, []
    prefix = keys.calls("")
    batches = {member.split(b" ")[0].decode() for member in await redis.zrange(keys.EMBEDDING_OPEN, 0, -1)}
    while True:
        cursor, found = await redis.scan(cursor, match=f"{prefix}*", count=1_000)
        job_ids = {key.decode().removeprefix(prefix) for key in found} - batches
        known = [await redis.exists(keys.job(job_id)) for job_id in job_ids]
        orphans += [job_id for job_id, there in zip(job_ids, known, strict=True) if not there]
        looked_at += 1_000
        if cursor == 0 or looked_at >= SCANNED:
            break
    if orphans:
        what = f"{len(orphans)} jobs left model calls in Redis that Postgres does not have, e.g. {orphans[0]}"
        mend = f'redis-cli -u "$REDIS_URL" HGETALL {keys.calls(orphans[0])}'
        return [warning("jobs.calls", what, mend)]
    return [ok("jobs.calls", "no model call was left behind")]
