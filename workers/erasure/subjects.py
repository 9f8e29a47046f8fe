"""Keyed hashes of users and conversations: what a fence says in their place.

Postgres keeps until when somebody was erased, never who. Whoever writes something of a user sends the hashes along,
and what was admitted before the fence is refused (sql/migrations, `unless_erased`). With several keys (while one is
replaced) each name has as many hashes: an erasure writes a fence for every one, so that processes that have the new key
already and those that do not meet it alike. Without a key of its own the deployment's secret makes them.
"""

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

from shared.config import Settings

HASH_BYTES = 16


class Subjects:
    """Made once per process by `Subjects.of`."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = keys

    @classmethod
    def of(cls, settings: Settings, deployment_id: str) -> "Subjects":
        """Without any secret, which development allows, the deployment's id stands in for one."""
        return cls(erasure_keys(settings, deployment_id))

    def of_turn(self, tenant: str, user_id: str | None, conversation_id: str) -> list[str]:
        """Of whatever belongs to both."""
        named = [*self.of_conversation(tenant, conversation_id)]
        return named if user_id is None else [*self.of_user(tenant, user_id), *named]

    def of_user(self, tenant: str, user_id: str) -> list[str]:
        """The first one is the current key's."""
        return self._hashes("user", tenant, user_id)

    def of_conversation(self, tenant: str, conversation_id: str) -> list[str]:
        return self._hashes("conversation", tenant, conversation_id)

    def of_address(self, tenant: str, address: str) -> list[str]:
        """Of somebody as a messenger knows them."""
        return self._hashes("address", tenant, address)

    def of_document(self, tenant: str, document: Any) -> list[str]:
        """Of everybody whom an unknown document may name: every text in it could be an address."""
        return [each for text in sorted(set(_texts(document))) for each in self.of_address(tenant, text)]

    def _hashes(self, kind: str, *names: str) -> list[str]:
        name = "\0".join((kind, *names)).encode(errors="surrogatepass")
        return [hmac.digest(key, name, "sha256")[:HASH_BYTES].hex() for key in self._keys]


def address_of(user_id: str | None) -> str | None:
    """How a messenger knows its user; None for whoever did not come through one. See `ingress.channels.intake`."""
    _, colon, address = (user_id or "").partition(":")
    return address if colon and address else None


def erasure_keys(settings: Settings, deployment_id: str) -> list[bytes]:
    """The current one first; of one length whatever was given."""
    given = [key.strip() for key in settings.erasure_key.get_secret_value().split(",") if key.strip()]
    if not given:
        given = [settings.secret.get_secret_value() or f"development {deployment_id}"]
    return [hashlib.sha256(b"switchboard erasure\0" + key.encode()).digest() for key in given]


MAX_ADDRESS_CHARS = 256


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, str) and 0 < len(document) <= MAX_ADDRESS_CHARS:
        yield document
    elif isinstance(document, dict):
        for name, value in document.items():
            yield from _texts(name)
            yield from _texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from _texts(value)
