"""All checks, one after the other, so that none disturbs another's view; each with its own time and its own failure."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import asyncpg
import msgspec
from pydantic import SecretStr
from redis.exceptions import RedisError

from ops.doctor import (
    belonging,
    clocks,
    deliveries,
    forgetting,
    memory,
    models,
    money,
    postgres_server,
    providers,
    queues,
    redis_server,
    reports,
)
from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import APP, Absent, Servers, opened
from shared.config import Settings
from shared.errors import Unavailable
from shared.faults import Fault

CHECK_TIMEOUT_S = 30.0
REDIS = "REDIS_URL"


class Check(NamedTuple):
    name: str
    look: Callable[[Servers], Awaitable[list[Finding]]]
    needs: tuple[str, ...] = ()
    """Variables that must be right; with a wrong one the check would look at another server."""


CHECKS: Sequence[Check] = (
    Check("redis", redis_server.check_redis, (REDIS,)),
    Check("redis.cache", redis_server.check_cache, ("SWITCHBOARD_CACHE_REDIS_URL",)),
    Check("postgres.login", postgres_server.check_logins),
    Check("postgres.version", postgres_server.check_version, (APP,)),
    Check("postgres.pgvector", postgres_server.check_pgvector, (APP,)),
    Check("postgres.migrations", postgres_server.check_migrations, (APP,)),
    Check("postgres.role.app", postgres_server.check_app_role, (APP,)),
    Check("postgres.roles", postgres_server.check_other_roles),
    Check("postgres.row_security", postgres_server.check_row_security, (APP,)),
    Check("postgres.connections", postgres_server.check_room, (APP,)),
    Check("postgres.ledger_months", postgres_server.check_ledger_months, (APP,)),
    Check("deployment", belonging.check_deployment, (APP, REDIS, "SWITCHBOARD_ENVIRONMENT")),
    Check("clocks", clocks.check_clocks, (REDIS, APP)),
    Check("providers.keys", providers.check_keys),
    Check("agents", providers.check_agents),
    Check("providers.token_tables", providers.check_token_tables),
    Check("models", models.check_models, (REDIS,)),
    Check("queues", queues.check_queues, (REDIS,)),
    Check("jobs.ends", queues.check_ends, (REDIS,)),
    Check("jobs.calls", queues.check_calls, (REDIS,)),
    Check("jobs.dead", queues.check_dead_jobs),
    Check("money", money.check_counters, (REDIS, APP)),
    Check("deliveries", deliveries.check_deliveries),
    Check("endpoints", deliveries.check_endpoints),
    Check("channels", deliveries.check_channels, ("SWITCHBOARD_CREDENTIALS_KEY", "SWITCHBOARD_CHANNEL_URLS")),
    Check("mail", deliveries.check_mail, ("SWITCHBOARD_SMTP_URL",)),
    Check("embeddings", memory.check_embeddings, ("SWITCHBOARD_EMBEDDING_MODEL",)),
    Check("memory", memory.check_memory),
    Check("memory.models", providers.check_memory_models, ("SWITCHBOARD_MEMORY_MODELS", "SWITCHBOARD_MEMORY_TASKS")),
    Check("erasures", forgetting.check_erasures, ("SWITCHBOARD_ERASURE_KEY", "SWITCHBOARD_SECRET")),
    Check("reports", reports.check_reports, ("SENTRY_DSN",)),
)
ONLINE: Sequence[Check] = (
    Check("providers.online", providers.check_keys_online),
    Check("embeddings.online", memory.check_embeddings_online),
)


async def examine(
    settings: Settings, faults: Sequence[Fault], strangers: Sequence[str], *, online: bool = False
) -> list[Finding]:
    """Every finding. `faults` and `strangers` are what `Settings.examine` and `unknown_variables` said."""
    found = [*_python(), *_settings(faults, strangers)]
    async with opened(settings, frozenset(one.name for one in faults)) as servers:
        for check in (*CHECKS, *(ONLINE if online else ())):
            found += await _run(check, servers)
    return _without_secrets(found, settings)


async def _run(check: Check, servers: Servers) -> list[Finding]:
    if wrong := [variable for variable in check.needs if variable in servers.wrong]:
        return [warning(check.name, f"not looked at: {' and '.join(wrong)} must be mended first")]
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check.look(servers)
    except Absent:
        return []  # the check of that server has said so
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, and the others go on
        return [_not_looked_at(check.name, error)]


def _not_looked_at(name: str, error: Exception) -> Finding:
    match error:
        case TimeoutError():
            return fault(name, f"no answer within {CHECK_TIMEOUT_S:.0f} s")
        case Unavailable() | RedisError() | OSError():
            return warning(name, f"could not be looked at: {error}")
        case asyncpg.UndefinedTableError() | asyncpg.UndefinedFunctionError() | asyncpg.UndefinedColumnError():
            return warning(name, "not looked at: the schema is older than this version", "switchboard migrate")
        case _:
            return fault(name, f"the check itself broke ({type(error).__name__}: {error})", "report it")


def _python() -> list[Finding]:
    return [ok("python", sys.version.split()[0])]


def _settings(faults: Sequence[Fault], strangers: Iterable[str]) -> list[Finding]:
    found = [fault("settings", f"{one.name}={one.shown} must be {one.allowed}", one.mend) for one in faults]
    found += [warning("settings", sentence) for sentence in strangers]
    return found or [ok("settings", "every setting is in its range")]


def _without_secrets(found: list[Finding], settings: Settings) -> list[Finding]:
    """A last net: whatever a server or a library put into its message, no password or key leaves here."""
    secrets = sorted(_secrets(settings), key=len, reverse=True)

    def clean(text: str | None) -> str | None:
        for secret in secrets if text else ():
            text = text.replace(secret, "***") if text else text
        return text

    return [msgspec.structs.replace(one, what=clean(one.what) or "", mend=clean(one.mend)) for one in found]


def _secrets(settings: Settings) -> set[str]:
    values = [getattr(settings, field) for field in type(settings).model_fields]
    hidden = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    for value in values:
        if isinstance(value, str) and "://" in value and (password := urlsplit(value).password):
            hidden |= {password, unquote(password)}
    return {secret for secret in hidden if len(secret) > 3}  # shorter ones are no secret, and would spoil every word
