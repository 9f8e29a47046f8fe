"""Postgres: is it there, migrated, with roles that keep tenants apart, and with room for what is coming?"""

from collections.abc import Iterator
from typing import Any

import asyncpg

from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import APP, OPS, OWNER, Servers
from sql import queries
from sql.migrate import MINIMUM_PGVECTOR, MINIMUM_SERVER, MigrationError, migrations, pending

MONTHS_AHEAD = 1
"""The ledger's partitions must exist for this month and the next; a worker makes three at a time."""
CROWDED_AT = 0.8
POOLS = 5
"""At least: of an ingress, a worker, a delivery process, and a console's two."""


async def check_logins(servers: Servers) -> list[Finding]:
    """Each address that is given opens. The owner's is the release's alone, where processes have their own roles."""
    findings = []
    for variable, login in servers.logins.items():
        name = f"postgres.login.{_role(variable)}"
        if isinstance(login, BaseException):
            said = " ".join(str(login).split()) or type(login).__name__
            findings.append(fault(name, f"cannot log in: {said}", f"mend {variable}, or the role's password"))
        else:
            findings.append(ok(name, f"logged in as {await login.fetchval('SELECT current_user')}"))
    if not servers.given(OWNER) and OWNER not in servers.wrong:
        findings.append(await _without_owner(servers))
    if not servers.given(OPS) and OPS not in servers.wrong:
        what = (
            f"{OPS} is not set: operators see one tenant at a time, deliveries, memory and erasures are not looked at"
        )
        findings.append(warning("postgres.login.ops", what, f"set {OPS}"))
    return findings


async def _without_owner(servers: Servers) -> Finding:
    login, name = servers.logins.get(APP), "postgres.login.owner"
    if login is None or isinstance(login, BaseException) or await login.fetchval(queries["owns_schema"]):
        return warning(name, f"{OWNER} is not set: migrations run as the app's role", f"set {OWNER}")
    return ok(name, f"{OWNER} is not given here; `switchboard migrate` needs it, and nothing else does")


async def check_version(servers: Servers) -> list[Finding]:
    connection = servers.login(APP)
    number = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
    shown = await connection.fetchval("SELECT current_setting('server_version')")
    if number < MINIMUM_SERVER:
        return [fault("postgres.version", f"PostgreSQL {shown} is too old", "use PostgreSQL 15 or newer")]
    return [ok("postgres.version", f"PostgreSQL {shown}")]


async def check_pgvector(servers: Servers) -> list[Finding]:
    found = await servers.login(APP).fetchval(queries["pgvector_version"])
    wanted = ".".join(map(str, MINIMUM_PGVECTOR))
    if found is None:
        mend = "as a superuser: CREATE EXTENSION vector"
        return [fault("postgres.pgvector", "the extension `vector` is not in this database", mend)]
    if tuple(int(part) for part in found.split(".")) < MINIMUM_PGVECTOR:
        mend = "install a newer pgvector, then: ALTER EXTENSION vector UPDATE"
        return [fault("postgres.pgvector", f"pgvector {found} is too old; {wanted} is needed", mend)]
    return [ok("postgres.pgvector", f"pgvector {found}")]


async def check_migrations(servers: Servers) -> list[Finding]:
    connection, name = servers.login(APP), "postgres.migrations"
    mend = "switchboard migrate"
    try:
        applied = {row["name"]: row["sha256"] for row in await connection.fetch(queries["applied_migrations"])}
        missing = pending(migrations(), applied)
    except asyncpg.UndefinedTableError:
        return [fault(name, "the database is empty", mend)]
    except MigrationError as error:
        return [fault(name, str(error), "deploy the version whose migrations this database has")]
    if missing:
        return [fault(name, f"not applied: {', '.join(one.name for one in missing)}", mend)]
    unknown = sorted(set(applied) - {one.name for one in migrations()})
    if unknown:
        what = f"{', '.join(unknown)} belong to a newer version; this one runs on"
        return [warning(name, what, "deploy the newer version again")]
    return [ok(name, f"{len(applied)} applied, the last one {max(applied)}")]


async def check_app_role(servers: Servers) -> list[Finding]:
    """What the start of a process refuses, and what it only warns of in development."""
    facts = await servers.login(APP).fetchrow(queries["connection_facts"])
    return list(_app_role(facts, production=servers.settings.environment == "production"))


def _app_role(facts: Any, *, production: bool) -> Iterator[Finding]:
    name, mend = facts["role_name"], "let DATABASE_URL log in as switchboard_app"
    rights = [right for right, has in (("SUPERUSER", "superuser"), ("BYPASSRLS", "bypasses_rls")) if facts[has]]
    if rights:
        yield fault("postgres.role.app", f"role {name} has {' and '.join(rights)}: tenants are not kept apart", mend)
    elif facts["owns_tables"]:
        what = f"role {name} owns the tables and could switch row-level security off"
        yield fault("postgres.role.app", what, mend) if production else warning("postgres.role.app", what, mend)
    else:
        yield ok("postgres.role.app", f"row-level security binds {name}")
    if facts["isolation"] != "read committed":
        mend = f"ALTER ROLE {name} SET default_transaction_isolation = 'read committed'"
        yield fault("postgres.isolation", f"default_transaction_isolation is {facts['isolation']}", mend)


async def check_other_roles(servers: Servers) -> list[Finding]:
    findings = []
    if not isinstance(servers.logins.get(OWNER, OSError()), BaseException):
        if await servers.login(OWNER).fetchval(queries["owns_schema"]):
            findings.append(ok("postgres.role.owner", "may migrate"))
        else:
            what = f"the role of {OWNER} does not own the tables: the next migration fails"
            findings.append(fault("postgres.role.owner", what, f"let {OWNER} log in as the owner"))
    if not isinstance(servers.logins.get(OPS, OSError()), BaseException):
        if await servers.login(OPS).fetchval(queries["sees_all_tenants"]):
            findings.append(ok("postgres.role.ops", "sees every tenant"))
        else:
            what = f"the role of {OPS} sees one tenant at a time"
            findings.append(fault("postgres.role.ops", what, f"let {OPS} log in as switchboard_ops"))
    return findings


async def check_row_security(servers: Servers) -> list[Finding]:
    rows = await servers.login(APP).fetch(queries["unprotected_tables"])
    if rows:
        names = [row["name"] for row in rows]
        mend = "; ".join(f"SELECT protect_table('{name}')" for name in names)
        return [fault("postgres.row_security", f"not forced on {', '.join(names)}", f"as the owner: {mend}")]
    return [ok("postgres.row_security", "forced on every table of tenants")]


async def check_room(servers: Servers) -> list[Finding]:
    row, name = await servers.login(APP).fetchrow(queries["connection_room"]), "postgres.connections"
    allowed, used, pool = row["allowed"], row["used"], servers.settings.db_pool_size
    mend = "raise max_connections, lower SWITCHBOARD_DB_POOL_SIZE, or put PgBouncer in between"
    what = f"{used} of {allowed} connections are open; each process opens up to {pool}"
    if POOLS * pool > allowed:
        return [fault(name, what, mend)]
    return [warning(name, what, mend) if used > CROWDED_AT * allowed else ok(name, what)]


async def check_ledger_months(servers: Servers) -> list[Finding]:
    missing = [row["month"] for row in await servers.login(APP).fetch(queries["missing_ledger_months"], MONTHS_AHEAD)]
    if missing:
        what = f"the ledger has no partition for {', '.join(missing)}: its rows go to the default one"
        mend = "as switchboard_ops: SELECT make_llm_calls_partitions()"
        return [warning("postgres.ledger_months", what, mend)]
    return [ok("postgres.ledger_months", f"this month and {MONTHS_AHEAD} further have their partitions")]


def _role(variable: str) -> str:
    return {APP: "app", OWNER: "owner", OPS: "ops"}[variable]
