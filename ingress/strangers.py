"""Requests without a valid key: so many a minute from one address, and no more of them reach Postgres.

`ingress.auth` counts a request before it asks Postgres about a key that nobody has seen, and takes the count back when
the key turns out to be valid. Keys that this process or Redis knows are never counted, whatever else comes from their
address.
"""

from dataclasses import dataclass

from starlette.types import Scope

from ingress.address import client_address, networks
from shared import keys
from shared.config import Settings
from shared.errors import RateLimited
from shared.rates import Standing, Window
from shared.redis import Commands
from shared.scripts import Script

WINDOW_S = 60

_stranger = Script("stranger")


class Strangers:
    """What one process knows of them; the windows are in Redis, for all processes."""

    def __init__(self, commands: Commands, settings: Settings) -> None:
        self.commands = commands
        self.per_min = settings.unauthorized_per_min
        self.trusted = networks(settings.trusted_proxies)

    def attempt(self, scope: Scope) -> "Attempt":
        return Attempt(self, scope)


@dataclass(slots=True)
class Attempt:
    """One request, which may turn out to have no valid key. Made for every one, so it asks nothing until it must."""

    _of: Strangers
    _scope: Scope
    _key: str = ""
    _entry: bytes = b""

    async def count(self) -> None:
        """Once, however often it is called. Raises RateLimited when the address has had its share, or Unavailable."""
        if self._entry:
            return
        self._key = keys.rate("address", client_address(self._scope, self._of.trusted))
        window = Window("address", self._key, self._of.per_min, WINDOW_S)
        argv: list[str | int] = [window.limit, window.length_s * 1_000_000]
        self._entry, remaining, left_us = await _stranger(self._of.commands, [window.key], argv)
        if not self._entry:
            wait_s = Standing(window, remaining, left_us).left_s
            raise RateLimited(
                "Too many requests without a valid API key from this address.", level="address", retry_after_s=wait_s
            )

    async def take_back(self) -> None:
        """It has one after all."""
        entry, self._entry = self._entry, b""
        if entry:
            await self._of.commands.run("LREM", self._key, -1, entry)
