"""Whether Redis, Postgres and SWITCHBOARD_ENVIRONMENT are of one deployment: what every process refuses otherwise."""

import asyncpg

from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import APP, Absent, Servers
from shared import deployment, keys
from sql import queries


async def check_deployment(servers: Servers) -> list[Finding]:
    try:
        row = await servers.login(APP).fetchrow(queries["deployment"])
    except asyncpg.UndefinedTableError:
        raise Absent from None  # reported by check_migrations
    if row is None:
        return [fault("deployment", "the table `deployment` is empty", "switchboard migrate --adopt")]
    mine = deployment.Deployment(row["id"], row["environment"])
    environment = servers.settings.environment
    if said := deployment.foreign_environment(mine, environment):
        return [fault("deployment", said, "mend DATABASE_URL or SWITCHBOARD_ENVIRONMENT")]
    found = await deployment.of_redis(servers.commands)
    if said := deployment.foreign_redis(mine, found):
        return [fault("deployment", said, f'mend REDIS_URL, or: redis-cli -u "$REDIS_URL" DEL {keys.DEPLOYMENT}')]
    if mine.environment is None and environment != "development":
        what = "the database does not say which environment it belongs to"
        return [warning("deployment", what, "switchboard migrate")]
    claimed = "Redis and Postgres belong together" if found else "no process has claimed this Redis yet"
    return [ok("deployment", f"{claimed} ({mine.environment or 'development'}, {mine.id})")]
