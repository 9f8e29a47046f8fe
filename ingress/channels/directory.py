"""Which channel a URL names: its record, from the caches or Postgres, and what its adapter needs of it.

Credentials travel encrypted, through Redis too, and are opened here, in memory only. A channel that was changed or
removed is so everywhere within `key_cache_ttl_s`.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog

from ingress.known import Known
from ingress.strangers import Attempt
from shared import keys
from shared.channels import registry
from shared.channels.registry import AnyChannel
from shared.config import Settings
from shared.errors import NotFound, Unavailable
from shared.redis import Commands
from shared.sealing import Sealer, Unreadable, credentials_about
from shared.tenants import Terms, read_settings

log = structlog.get_logger(__name__)

_ID = re.compile(r"ch-[a-z0-9]{16}")
MAX_OPEN = 10_000


class ChannelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A channel as Postgres knows it; also its JSON in Redis."""

    id: str
    tenant: str
    kind: str
    agent: str
    domain: str | None
    feature: str | None
    settings: dict[str, Any]
    version: int
    sealed: str
    terms: Terms


class ChannelArchive(Protocol):
    """Where channels are kept for good."""

    async def channel(self, channel_id: str) -> ChannelRecord | None: ...


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """A channel, ready to be spoken through."""

    record: ChannelRecord
    adapter: AnyChannel
    settings: Any
    credentials: Any


def record_of(row: Mapping[str, Any]) -> ChannelRecord:
    """A row of `resolve_channel`. Raises Unavailable for settings that were not written by our tools."""
    channel = msgspec.json.decode(row["channel"], type=dict[str, Any])
    try:
        terms = read_settings(row["settings"]).terms(row["settings_version"])
        return msgspec.convert({**channel, "sealed": row["sealed"], "terms": terms}, ChannelRecord)
    except ValueError as error:
        log.error("channel_unreadable", channel=channel.get("id"), error=str(error))  # noqa: TRY400 - the fault is in the row
        raise Unavailable("the channel cannot be read") from error


class Channels:
    def __init__(self, commands: Commands, archive: ChannelArchive, settings: Settings) -> None:
        """Raises ConfigError for an adapter or a key that cannot be used."""
        self._adapters = registry.load()
        self._sealer = Sealer(settings.credentials_key.get_secret_value())
        self._known = Known(
            commands, ChannelRecord, key=keys.channel, ask=archive.channel, ttl_s=settings.key_cache_ttl_s
        )
        self._open: OrderedDict[tuple[str, str], OpenChannel] = OrderedDict()

    async def find(self, channel_id: str, attempt: Attempt) -> OpenChannel:
        """Raises NotFound, also for a disabled tenant's; RateLimited for an address that guesses; Unavailable, also
        when its credentials cannot be opened."""
        record = await self._known.find(channel_id, attempt) if _ID.fullmatch(channel_id) else None
        if record is None or record.kind not in self._adapters:
            raise NotFound("There is no such channel.")
        found = self._open.get((record.id, record.sealed))
        if found is None or found.record != record:
            found = self._open[record.id, record.sealed] = self._opened(record)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return found

    async def aclose(self) -> None:
        await self._known.aclose()

    def _opened(self, record: ChannelRecord) -> OpenChannel:
        adapter = self._adapters[record.kind]
        try:
            secret = self._sealer.open(record.sealed, about=credentials_about(record.tenant, record.id))
            credentials = msgspec.json.decode(secret, type=adapter.credentials)
            settings = msgspec.convert(record.settings, adapter.settings)
        except (Unreadable, msgspec.ValidationError) as error:
            log.error("channel_unusable", channel=record.id, kind=record.kind, error=str(error))  # noqa: TRY400 - no fault of this code
            raise Unavailable("the channel's credentials or settings cannot be read") from error
        return OpenChannel(record, adapter, settings, credentials)
