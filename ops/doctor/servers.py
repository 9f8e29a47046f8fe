"""The connections that checks share: opened once, unchecked, each on its own; what does not open is said by its check.

Not `shared.db.open_pool` and not a process's start: those refuse what the doctor is to look at.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from agents import registry
from agents.api import Agent
from shared.config import Settings
from shared.redis import Commands, connect

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 10.0


class Absent(Exception):
    """A server that another check has reported as absent: there is nothing more to say."""


@dataclass(frozen=True, kw_only=True)
class Servers:
    settings: Settings
    wrong: frozenset[str]
    """Environment variables that were wrong: what stands in the settings for them is a default."""
    commands: Commands
    logins: Mapping[str, Any]
    """By variable: an asyncpg connection, or the exception that kept it from opening."""

    def given(self, variable: str) -> bool:
        return variable in self.logins

    def login(self, variable: str) -> Any:
        """The connection, for checks after the one that reports why there is none. Raises Absent."""
        connection = self.logins.get(variable)
        if connection is None or isinstance(connection, BaseException):
            raise Absent
        return connection

    def agents(self) -> Mapping[str, Agent]:
        """Raises ConfigError when an agent's file is wrong."""
        return registry.load()

    def queues(self) -> list[str]:
        return sorted({self.settings.queue, *(agent.queue for agent in self.agents().values())})


APP, OWNER, OPS = "DATABASE_URL", "SWITCHBOARD_OWNER_DATABASE_URL", "SWITCHBOARD_OPS_DATABASE_URL"


@asynccontextmanager
async def opened(settings: Settings, wrong: frozenset[str]) -> AsyncIterator[Servers]:
    addresses = {APP: settings.database_url, OWNER: settings.owner_database_url, OPS: settings.ops_database_url}
    async with AsyncExitStack() as closing:
        commands = Commands(connect(settings.redis_url, max_connections=4))
        closing.push_async_callback(commands.aclose)
        logins = {}
        for variable, address in addresses.items():
            if address is not None and variable not in wrong:
                logins[variable] = await _login(closing, address)
        yield Servers(settings=settings, wrong=wrong, commands=commands, logins=logins)


async def _login(closing: AsyncExitStack, address: str) -> Any:
    try:
        connection = await asyncpg.connect(
            address,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            statement_cache_size=0,  # behind PgBouncer too
            server_settings={"application_name": "switchboard doctor"},
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        return error
    closing.push_async_callback(connection.close, timeout=CONNECT_TIMEOUT_S)
    return connection
