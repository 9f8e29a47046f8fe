"""Who is calling: API keys and read tokens become a `Caller`.

A key is known by its SHA-256 only. Look-ups go local cache → Redis → Postgres. What is guaranteed: a key that is
revoked in Postgres is refused everywhere within `key_cache_ttl_s`, and a tenant's changed settings are in force by
then, because no answer is used for longer after Postgres gave it; Redis need not be told. While Postgres is down keys
it confirmed in the last day stay valid, unknown ones get 503. A key in use is confirmed ahead of time in the
background, so its requests wait for nothing. A key that neither this process nor Redis knows costs its address one of
its requests without a valid key (`ingress.strangers`), before Postgres is asked.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog

from ingress.strangers import Attempt
from ingress.tasks import stop
from shared import keys
from shared.errors import Unauthorized, Unavailable
from shared.redis import Commands
from shared.tenants import Terms, read_settings

log = structlog.get_logger(__name__)

STALE_MS = 86_400_000
"""How long a confirmed key may be used while Postgres cannot be asked; also its time to live in Redis."""
MAX_CACHED_KEYS = 10_000
_KEY = re.compile(r"[\x21-\x7e]{8,512}")


class Principal(msgspec.Struct, frozen=True):
    """What a key stands for; also its JSON in Redis."""

    tenant: str
    scopes: list[str]
    terms: Terms = Terms()
    """What the tenant's settings say of its messages."""

    def may(self, scope: str) -> bool:
        """`admin` includes `chat`, and nothing else includes anything."""
        return scope in self.scopes or (scope == "chat" and "admin" in self.scopes)


class KeyArchive(Protocol):
    """Where keys are kept for good."""

    async def api_key(self, sha256: str) -> Principal | None: ...


def principal_of(row: Mapping[str, Any]) -> Principal:
    """A row of `resolve_api_key`. Raises Unavailable for settings that were not written by our tools."""
    try:
        settings = read_settings(row["settings"])
    except ValueError as error:
        log.error("tenant_settings_unreadable", tenant=row["tenant_id"], error=str(error))  # noqa: TRY400 - the fault is in the row
        raise Unavailable("the tenant's settings cannot be read") from error
    return Principal(row["tenant_id"], list(row["scopes"]), settings.terms(row["settings_version"]))


class Caller(msgspec.Struct, frozen=True):
    """A request's tenant. `key_sha256` is empty when a read token was used."""

    tenant: str
    key_sha256: str
    terms: Terms


async def known_by_key(api_keys: "ApiKeys", authorization: str, attempt: Attempt) -> tuple[str, Principal]:
    """Who sends this `Authorization` header: the key's SHA-256, and what it stands for.

    Raises Unauthorized, or once the address has sent too many that are not valid, RateLimited; or Unavailable.
    """
    kind, _, key = authorization.partition(" ")
    if kind.lower() != "bearer" or not key.strip():
        await attempt.count()
        raise Unauthorized("An API key is needed: `Authorization: Bearer <key>`.")
    sha256, principal = await api_keys.resolve(key.strip(), attempt)
    if principal is None:
        await attempt.count()
        raise Unauthorized("This API key is not valid.")
    return sha256, principal


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal | None
    confirmed_s: float
    """Monotonic time at which Postgres said so."""


class ApiKeys:
    """Resolves keys. Bounded: the least recently used are forgotten first."""

    def __init__(self, commands: Commands, archive: KeyArchive, *, ttl_s: float) -> None:
        self._commands = commands
        self._archive = archive
        self._ttl_s = ttl_s
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[Principal | None]] = {}

    def at_hand(self, authorization: bytes) -> tuple[str, Principal] | None:
        """What `known_by_key` would find, if this process knows it, and it is not due to be confirmed or about to be;
        nobody is asked."""
        if not authorization.startswith(b"Bearer "):
            return None
        sha256 = hashlib.sha256(authorization[7:]).hexdigest()
        known = self._known.get(sha256)
        if known is None or known.principal is None:
            return None
        good_for_s = self._ttl_s if sha256 in self._lookups else self._ttl_s / 2
        if time.monotonic() - known.confirmed_s >= good_for_s:
            return None
        self._known.move_to_end(sha256)
        return sha256, known.principal

    async def resolve(self, key: str, attempt: Attempt) -> tuple[str, Principal | None]:
        """The key's SHA-256 and what it stands for; None when it is not valid. Raises RateLimited or Unavailable."""
        sha256 = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        if not _KEY.fullmatch(key):
            return sha256, None
        known = self._known.get(sha256)
        age_s = time.monotonic() - known.confirmed_s if known else self._ttl_s
        if known and age_s < self._ttl_s:
            self._known.move_to_end(sha256)
            if age_s > self._ttl_s / 2 and known.principal:
                self._lookup(sha256, attempt)
            return sha256, known.principal
        return sha256, await asyncio.shield(self._lookup(sha256, attempt))

    async def aclose(self) -> None:
        await stop(*self._lookups.values())

    def _lookup(self, sha256: str, attempt: Attempt) -> "asyncio.Task[Principal | None]":
        """One look-up in flight per key, whoever waits for it, and whether or not they stay."""
        task = self._lookups.get(sha256)
        if task is None:
            task = self._lookups[sha256] = asyncio.create_task(self._confirm(sha256, attempt))
            task.add_done_callback(lambda done: self._looked_up(sha256, done))
        return task

    def _looked_up(self, sha256: str, task: "asyncio.Task[Principal | None]") -> None:
        del self._lookups[sha256]
        if not task.cancelled() and (error := task.exception()):  # those who wait are told; a refresh has nobody
            log.warning("api_key_not_confirmed", error=repr(error))

    async def _confirm(self, sha256: str, attempt: Attempt) -> Principal | None:
        started_s = time.monotonic()
        cached, age_s = await self._from_redis(sha256)
        if cached and age_s < self._ttl_s / 2:
            return self._remember(sha256, cached, started_s - age_s)
        try:
            principal = await self._asked(sha256, None if cached or self._was_valid(sha256) else attempt)
        except Unavailable:
            if cached is None:
                raise
            log.warning("api_key_stale", age_s=round(age_s, 3))
            return self._remember(sha256, cached, started_s)
        if principal:
            encoded = msgspec.json.encode(principal)
            # The time the question took counts as age: the answer is no younger than its question.
            spent_ms = int((time.monotonic() - started_s) * 1000)
            await self._commands.run("SET", keys.api_key(sha256), encoded, "PX", max(1, STALE_MS - spent_ms))
        elif cached:
            await self._commands.run("DEL", keys.api_key(sha256))
        return self._remember(sha256, principal, started_s)

    def _was_valid(self, sha256: str) -> bool:
        known = self._known.get(sha256)
        return known is not None and known.principal is not None

    async def _asked(self, sha256: str, attempt: Attempt | None) -> Principal | None:
        """Postgres's answer. With an `attempt`, counted before the question: a flood must not come through while the
        first answers are under way."""
        if attempt is None:
            return await self._archive.api_key(sha256)
        await attempt.count()
        try:
            principal = await self._archive.api_key(sha256)
        except Unavailable:  # nobody knows whether it is valid
            await attempt.take_back()
            raise
        if principal:
            await attempt.take_back()
        return principal

    async def _from_redis(self, sha256: str) -> tuple[Principal | None, float]:
        """The shared answer and its age, told from what is left of its time to live: the server's clock, not ours."""
        name = keys.api_key(sha256)
        raw, left_ms = await asyncio.gather(self._commands.run("GET", name), self._commands.run("PTTL", name))
        if raw is None or left_ms < 0:
            return None, 0.0
        return msgspec.json.decode(raw, type=Principal), (STALE_MS - left_ms) / 1000

    def _remember(self, sha256: str, principal: Principal | None, confirmed_s: float) -> Principal | None:
        self._known[sha256] = _Known(principal, confirmed_s)
        self._known.move_to_end(sha256)
        while len(self._known) > MAX_CACHED_KEYS:
            self._known.popitem(last=False)
        return principal
