"""A channel, ready to send through: its adapter, and its settings and credentials as the adapter reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.channels import registry
from shared.channels.registry import AnyChannel
from shared.config import Settings
from shared.sealing import Sealer, Unreadable, credentials_about
from workers.replies.claimed import ChannelRow


class Unusable(Exception):
    """The channel cannot send as it is; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class OpenChannel:
    id: str
    adapter: AnyChannel
    settings: Any
    credentials: Any
    base_url: str | None
    """In the provider's place."""
    status_url: str | None
    """Where the provider may call the ingress."""


class Channels:
    """Opens channels; credentials are in memory for as long as one is used."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for an adapter, a key or a URL that cannot be used."""
        self._adapters = registry.load()
        self._sealer = Sealer(settings.credentials_key.get_secret_value())
        self._base_urls: Mapping[str, str] = settings.channel_base_urls()
        self._public_url = settings.public_url

    def open(self, tenant: str, row: ChannelRow) -> OpenChannel:
        """Raises Unusable."""
        adapter = self._adapters.get(row.kind)
        if adapter is None:
            raise Unusable("unknown_kind", f"this version does not know channels of the kind {row.kind}")
        try:
            secret = self._sealer.open(row.sealed, about=credentials_about(tenant, row.id))
            credentials = msgspec.json.decode(secret, type=adapter.credentials)
            settings = msgspec.convert(row.settings, adapter.settings)
        except (Unreadable, msgspec.ValidationError) as error:
            raise Unusable("channel_unreadable", f"its credentials or settings cannot be read: {error}") from error
        if missing := adapter.lacks(settings, credentials):
            raise Unusable("no_credential", f"the channel has no {missing}: set it with `switchboard channels set`")
        public = getattr(settings, "public_url", None) or self._public_url
        status_url = None if public is None else f"{public.rstrip('/')}/v1/channels/{row.id}/webhook"
        return OpenChannel(row.id, adapter, settings, credentials, self._base_urls.get(row.kind), status_url)
