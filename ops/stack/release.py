"""`switchboard migrate`: the release step of a deployment, run once per deploy as the role that owns the schema.

Refuses the database of another environment before it changes anything, migrates, writes down whose it is, and
makes the ledger's partitions for the coming months.
"""

import asyncio

import asyncpg

from ops.stack.process import StackError
from shared.db import Environment
from shared.deployment import Deployment, foreign_environment
from shared.errors import ConfigError
from sql import queries
from sql.migrate import MigrationError, migrate

CONNECT_TIMEOUT_S = 10.0
LEDGER_MONTHS = 3


def release(owner_dsn: str, environment: Environment, *, adopt: bool = False) -> list[str]:
    """What was done, a line each. Raises StackError, or ConfigError for another environment's database.

    `adopt` makes a copied database a deployment of its own: it forgets whose copy it was.
    """
    try:
        return asyncio.run(_release(owner_dsn, environment, adopt=adopt))
    except MigrationError as error:
        raise StackError(f"PostgreSQL: {error}") from error
    except (asyncpg.PostgresError, OSError) as error:
        raise StackError(f"PostgreSQL: cannot write down the deployment: {error}") from error


async def _release(owner_dsn: str, environment: Environment, *, adopt: bool) -> list[str]:
    known = None if adopt else await _known(owner_dsn)
    if known and (fault := foreign_environment(known, environment)):
        raise ConfigError(fault)
    done = await migrate(owner_dsn)
    named = None if environment == "development" else environment
    connection = await asyncpg.connect(owner_dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    try:
        if adopt:
            await connection.fetchval(queries["adopt_deployment"], named)
            done.append(f"adopted: this database is a deployment of its own now ({environment})")
        elif named and await connection.fetchval(queries["set_deployment_environment"], named) == named:
            done.append(f"this database belongs to {named} from now on")
        if made := await connection.fetchval(queries["make_llm_calls_partitions"], LEDGER_MONTHS):
            done.append(f"ledger: {made} further months")
    finally:
        await connection.close()
    return done


async def _known(owner_dsn: str) -> Deployment | None:
    """None for a database that does not know yet, or does not answer: `migrate` says why."""
    try:
        connection = await asyncpg.connect(owner_dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError):
        return None
    try:
        if await connection.fetchval("SELECT to_regclass('public.deployment')") is None:
            return None
        row = await connection.fetchrow(queries["deployment"])
        return Deployment(row["id"], row["environment"]) if row else None
    finally:
        await connection.close()
