"""Read tokens: they open one job, for reading, to whoever holds its `events_url` (an EventSource sends no header).

`<tenant>.<mac>`: the tenant is in it because Postgres answers per tenant; the MAC binds tenant and job. A token does
not expire, and a change of `SWITCHBOARD_SECRET` ends them all.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode

from shared.config import Settings

MAC_BYTES = 16
BLOCK_BYTES = 64
"""Of SHA-256."""


class ReadTokens:
    """Signs and verifies. Without a secret, which development allows, tokens live as long as this process."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.secret.get_secret_value().encode() or secrets.token_bytes(32)
        # HMAC (RFC 2104) from two hashes that have read the key already: the library begins anew for each message.
        padded = (hashlib.sha256(secret).digest() if len(secret) > BLOCK_BYTES else secret).ljust(BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def sign(self, tenant: str, job_id: str) -> str:
        return f"{tenant}.{self._mac(tenant, job_id)}"

    def tenant_of(self, token: str, job_id: str) -> str | None:
        """The tenant whose job the token opens; None when it does not open this one."""
        tenant, _, mac = token.rpartition(".")
        genuine = self._mac(tenant, job_id)
        return tenant if hmac.compare_digest(mac.encode("utf-8", "replace"), genuine.encode()) else None

    def _mac(self, tenant: str, job_id: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(f"read-job\0{tenant}\0{job_id}".encode("utf-8", "replace"))
        outer.update(inner.digest())
        return urlsafe_b64encode(outer.digest()[:MAC_BYTES]).rstrip(b"=").decode()
