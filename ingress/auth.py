"""Who is calling: API keys and read tokens become a `Caller`.

A key is known by its SHA-256 only, and looked for through `ingress.known`. What that guarantees: a key that is revoked
in Postgres is refused everywhere within `key_cache_ttl_s`, and a tenant's changed settings are in force by then. While
Postgres is down keys it confirmed in the last day stay valid, unknown ones get 503. A key that neither this process nor
Redis knows costs its address one of its requests without a valid key (`ingress.strangers`), before Postgres is asked.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import structlog

from ingress.known import Known
from ingress.strangers import Attempt
from shared import keys
from shared.errors import Unauthorized, Unavailable
from shared.redis import Commands
from shared.tenants import Terms, read_settings

log = structlog.get_logger(__name__)

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


class ApiKeys:
    """Resolves keys; each is looked for by its SHA-256."""

    def __init__(self, commands: Commands, archive: KeyArchive, *, ttl_s: float) -> None:
        self._known = Known(commands, Principal, key=keys.api_key, ask=archive.api_key, ttl_s=ttl_s)

    def at_hand(self, authorization: bytes) -> tuple[str, Principal] | None:
        """What `known_by_key` would find, if this process knows it, and it is not due to be confirmed or about to be;
        nobody is asked."""
        if not authorization.startswith(b"Bearer "):
            return None
        sha256 = hashlib.sha256(authorization[7:]).hexdigest()
        principal = self._known.at_hand(sha256)
        return None if principal is None else (sha256, principal)

    async def resolve(self, key: str, attempt: Attempt) -> tuple[str, Principal | None]:
        """The key's SHA-256 and what it stands for; None when it is not valid. Raises RateLimited or Unavailable."""
        sha256 = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        return sha256, await self._known.find(sha256, attempt) if _KEY.fullmatch(key) else None

    async def aclose(self) -> None:
        await self._known.aclose()
