"""Read tokens: they open one job, for reading, to whoever holds its `events_url` (an EventSource sends no header).

`<tenant>.<mac>`: the tenant is in it because Postgres answers per tenant; the MAC binds tenant and job. A token does
not expire, and a change of `SWITCHBOARD_SECRET` ends them all.
"""

import hmac
import secrets
from base64 import urlsafe_b64encode

from shared.config import Settings

MAC_BYTES = 16


class ReadTokens:
    """Signs and verifies. Without a secret, which development allows, tokens live as long as this process."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.secret.get_secret_value().encode() or secrets.token_bytes(32)
        self._keyed = hmac.new(secret, digestmod="sha256")
        """Of nothing so far: a copy of it costs less than a new one."""

    def sign(self, tenant: str, job_id: str) -> str:
        return f"{tenant}.{self._mac(tenant, job_id)}"

    def tenant_of(self, token: str, job_id: str) -> str | None:
        """The tenant whose job the token opens; None when it does not open this one."""
        tenant, _, mac = token.rpartition(".")
        genuine = self._mac(tenant, job_id)
        return tenant if hmac.compare_digest(mac.encode("utf-8", "replace"), genuine.encode()) else None

    def _mac(self, tenant: str, job_id: str) -> str:
        mac = self._keyed.copy()
        mac.update(f"read-job\0{tenant}\0{job_id}".encode("utf-8", "replace"))
        return urlsafe_b64encode(mac.digest()[:MAC_BYTES]).rstrip(b"=").decode()
