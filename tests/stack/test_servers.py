"""The embedded servers: what every other test stands on, and what `switchboard dev` keeps its data in."""

import os
import signal
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from ops.stack.directory import DataDirectory
from ops.stack.postgres import Postgres, start_postgres
from ops.stack.process import StackError
from ops.stack.valkey import Valkey, start_valkey
from tests.conftest import NO_FSYNC, Database


async def test_valkey_appends_every_write_and_evicts_nothing(redis: Redis) -> None:
    names = ["appendonly", "appendfsync", "maxmemory-policy", "save"]
    config = {name: value for one in names for name, value in (await redis.config_get(one)).items()}
    assert config == {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_valkey_finds_its_data_again_at_the_same_port(private_directory: DataDirectory, how: signal.Signals) -> None:
    first = start_valkey(private_directory)
    with SyncRedis.from_url(first.url()) as client:
        client.set("answer", "42")
    first.child.signal(how)
    first.child.join(timeout_s=60)
    second = start_valkey(private_directory, port=first.port)
    try:
        with SyncRedis.from_url(second.url()) as client:
            assert client.get("answer") == b"42"
    finally:
        second.child.stop()


def test_valkey_does_not_take_another_server_for_its_own(private_directory: DataDirectory, valkey: Valkey) -> None:
    with pytest.raises(StackError, match="no free port"):
        start_valkey(private_directory, port=valkey.port)


async def test_the_roles_of_the_program_have_no_special_rights(empty_database: Database) -> None:
    connection = await asyncpg.connect(empty_database.owner)
    try:
        roles = await connection.fetch(
            "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname LIKE 'switchboard%'"
        )
        vector = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    finally:
        await connection.close()
    assert sorted(tuple(role) for role in roles) == [
        ("switchboard_app", False, False, False),
        ("switchboard_ops", False, False, False),
        ("switchboard_owner", False, False, True),
    ]
    assert vector >= "0.8.4"


def test_servers_never_run_as_root(valkey: Valkey, postgres: Postgres) -> None:
    for server in (valkey.child, postgres.child):
        assert psutil.Process(server.pid).uids().effective != 0


async def test_postgres_listens_on_no_port(empty_database: Database) -> None:
    connection = await asyncpg.connect(empty_database.app)
    try:
        assert await connection.fetchval("SHOW listen_addresses") == ""
    finally:
        await connection.close()


def test_postgres_starts_over_what_a_killed_one_left(private_directory: DataDirectory) -> None:
    first = start_postgres(private_directory)
    first.superuser_sql("CREATE TABLE kept (answer int); INSERT INTO kept VALUES (42);")
    family = psutil.Process(first.child.pid).children(recursive=True)
    first.child.signal(signal.SIGKILL)
    first.child.join(timeout_s=60)
    psutil.wait_procs(family, timeout=60)
    claims_a_live_process(private_directory.path / "postgres" / "postmaster.pid")

    second = start_postgres(private_directory)
    try:
        second.superuser_sql("DO $$ BEGIN ASSERT (SELECT answer FROM kept) = 42; END $$")
    finally:
        second.stop()


def claims_a_live_process(postmaster_pid: Path) -> None:
    """As after a reboot, when another program got the dead server's pid: PostgreSQL alone would refuse to start."""
    lines = postmaster_pid.read_text().splitlines()
    postmaster_pid.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")


def test_a_path_too_long_for_a_socket_gets_a_short_private_one(private_directory: DataDirectory) -> None:
    with DataDirectory(private_directory.path / ("long" * 25)) as directory:
        server = start_postgres(directory, settings=NO_FSYNC)
        try:
            server.superuser_sql("SELECT 1")
            assert server.sockets != directory.path / "postgres"
            assert server.sockets.stat().st_mode & 0o077 == 0
        finally:
            server.stop()
        assert not server.sockets.exists()


def test_data_of_another_major_version_is_refused_in_one_line(private_directory: DataDirectory) -> None:
    data = private_directory.subdirectory("postgres")
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(StackError, match="holds data of PostgreSQL 15") as refusal:
        start_postgres(private_directory)
    assert "\n" not in str(refusal.value)
