"""Erasures: what was promised to a user, and waits."""

from ops.doctor.findings import Finding, fault, ok
from ops.doctor.servers import OPS, Servers
from ops.users.whom import Seals
from shared.sealing import Unreadable
from sql import queries
from workers.erasure.subjects import Subjects, erasure_keys

LATE_S = 600.0
"""One waits for model calls under way, at the longest."""
LOOKED_AT = 100


async def check_erasures(servers: Servers) -> list[Finding]:
    login, name = servers.login(OPS), "erasures"
    deployment = await login.fetchrow(queries["deployment"])
    rows = await login.fetch(queries["open_erasures"], LOOKED_AT)
    seals = Seals(erasure_keys(servers.settings, deployment["id"]), Subjects.of(servers.settings, deployment["id"]))
    unreadable = [row["erasure"] for row in rows if not _opens(seals, row["tenant"], row["sealed"])]
    if unreadable:
        what = f"{len(unreadable)} cannot go on: they were begun with another key, e.g. {unreadable[0]}"
        mend = "SWITCHBOARD_ERASURE_KEY=<the key now>,<the key then>   # of every process; or ask for them again"
        return [fault(name, what, mend)]
    load = await login.fetchrow(queries["erasure_load"])
    if load["oldest_s"] > LATE_S:
        what = f"{load['erasures']} are not done, the oldest after {load['oldest_s']:.0f} s"
        return [fault(name, what, "switchboard console   # with SWITCHBOARD_OPS_DATABASE_URL; it goes on with them")]
    return [ok(name, f"{load['erasures']} under way")]


def _opens(seals: Seals, tenant: str, sealed: str) -> bool:
    try:
        seals.open(tenant, sealed)
    except Unreadable:
        return False
    return True
