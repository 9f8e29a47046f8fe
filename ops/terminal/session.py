"""A command's session: who types it, the servers it opens, and how it says what is wrong with a request."""

import asyncio
import os
import pwd
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from ops.terminal.output import note
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.errors import InvalidRequest
from shared.redis import Commands, connect

Act = Callable[[], Coroutine[Any, Any, int]]
"""What a command does; its exit code."""
CONNECTIONS = 2
"""To each server: one at work, one to spare."""


def ran(act: Act) -> int:
    """The action's exit code. Log lines go to stderr, so that stdout holds results only."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    return asyncio.run(act())


def said(act: Act) -> int:
    """The same; every fault of a request on a line of its own, and 1."""
    try:
        return ran(act)
    except InvalidRequest as error:
        for fault in error.faults or [{"field": "switchboard", "message": str(error)}]:
            note(f"{fault['field']}: {fault['message']}")
        return 1


@asynccontextmanager
async def postgres(settings: Settings, connections: int = CONNECTIONS) -> AsyncIterator[Pool]:
    """As the role for operators; as the one that serves tenants where there is no other."""
    pool = await open_pool(
        settings.ops_database_url or settings.database_url,
        connections,
        environment=settings.environment,
        prepared_statements=settings.db_prepared_statements,
    )
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def both_servers(settings: Settings) -> AsyncIterator[tuple[Pool, Commands]]:
    async with postgres(settings) as pool:
        commands = Commands(connect(settings.redis_url, max_connections=CONNECTIONS))
        try:
            yield pool, commands
        finally:
            await commands.aclose()


def user() -> str:
    """Who acts, for the books."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a container's nameless user
        return f"cli:{os.getuid()}"
