"""Staging and production stay apart: a process works only with the Redis and the Postgres of its own deployment.

Every process calls `claim` once it has both. The database knows its deployment's id and environment (migration 0009,
`switchboard migrate`); the first process that meets an empty Redis writes the id there. What this cannot see is a
copied database, which has the same id: `switchboard migrate --adopt` gives it one of its own.
"""

from typing import NamedTuple

from shared import keys
from shared.db import Environment, Pool
from shared.errors import ConfigError
from shared.redis import Commands
from sql import queries


class Deployment(NamedTuple):
    id: str
    environment: str | None
    """staging or production once a release said so; None: any."""


async def claim(commands: Commands, pool: Pool, environment: Environment) -> Deployment:
    """This process's own. Raises ConfigError when a server is another deployment's, Unavailable when one is away."""
    mine = await of_database(pool)
    if fault := foreign_environment(mine, environment):
        raise ConfigError(fault)
    found = await of_redis(commands)
    if found is None:
        await commands.run("SET", keys.DEPLOYMENT, mine.id, "NX")  # another process may be first
        found = await of_redis(commands)
    if fault := foreign_redis(mine, found):
        raise ConfigError(fault)
    return mine


async def of_database(pool: Pool) -> Deployment:
    row = await pool.fetchrow(queries["deployment"])
    if row is None:
        raise ConfigError("the table `deployment` is empty; run `switchboard migrate --adopt`")
    return Deployment(row["id"], row["environment"])


async def of_redis(commands: Commands) -> str | None:
    """The id of the deployment whose Redis this is; None before the first process."""
    found: bytes | None = await commands.run("GET", keys.DEPLOYMENT)
    return found.decode(errors="replace") if found is not None else None


def foreign_environment(mine: Deployment, environment: str) -> str | None:
    """What is wrong, in a sentence."""
    if mine.environment in (None, environment):
        return None
    return (
        f"DATABASE_URL leads to the database of {mine.environment}, and SWITCHBOARD_ENVIRONMENT is {environment}: "
        "mend one of them; a copied database needs `switchboard migrate --adopt`"
    )


def foreign_redis(mine: Deployment, found: str | None) -> str | None:
    """What is wrong, in a sentence."""
    if found in (None, mine.id):
        return None
    return (
        f"REDIS_URL leads to the Redis of deployment {found}, and this database is of deployment {mine.id}: mend one "
        f"of them; if nothing else uses this Redis, delete its key {keys.DEPLOYMENT}"
    )
