"""deploy/postgres/roles.sh on a server of its own, and then the product on what it made, as production has it."""

import asyncio
import os
import subprocess

import asyncpg

from ops.stack.directory import DataDirectory
from ops.stack.postgres import _installation, start_postgres
from ops.stack.release import release
from shared.db import open_pool
from tests.deploy.reading import REPOSITORY

PASSWORDS = {f"SWITCHBOARD_{role}_PASSWORD": f"it's-{role}" for role in ("OWNER", "APP", "OPS")}


async def test_a_new_server_gets_roles_that_the_product_accepts(private_directory: DataDirectory) -> None:
    server = start_postgres(private_directory, settings={"fsync": "off"})
    try:
        server.superuser_sql("CREATE DATABASE shipped")
        inherited = dict(os.environ)  # noqa: TID251 - PATH and the like for psql
        env = {
            "PATH": f"{_installation()}:{inherited['PATH']}",
            "PGHOST": str(server.sockets),
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": "shipped",
            **PASSWORDS,
        }
        for _ in range(2):  # running it again changes nothing
            subprocess.run(
                ["/bin/sh", "deploy/postgres/roles.sh"], cwd=REPOSITORY, env=env, check=True, capture_output=True
            )
        owner, app = (server.dsn(f"switchboard_{role}", "shipped") for role in ("owner", "app"))
        assert "this database belongs to production from now on" in await asyncio.to_thread(
            release, owner, "production"
        )
        pool = await open_pool(app, 1, environment="production")
        await pool.close()
        assert await _roles(server.dsn("postgres", "shipped")) == {
            "switchboard_app": (True, False, False),
            "switchboard_ops": (True, False, False),
            "switchboard_owner": (True, False, False),
        }
    finally:
        server.stop()


async def _roles(superuser: str) -> dict[str, tuple[bool, bool, bool]]:
    """Name → has a password, is a superuser, walks around row-level security."""
    connection = await asyncpg.connect(superuser)
    rows = await connection.fetch(
        "SELECT rolname, rolpassword IS NOT NULL AS password, rolsuper, rolbypassrls FROM pg_authid "
        "WHERE rolname LIKE 'switchboard%'"
    )
    await connection.close()
    return {row["rolname"]: (row["password"], row["rolsuper"], row["rolbypassrls"]) for row in rows}
