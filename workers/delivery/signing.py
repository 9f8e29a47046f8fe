"""Standard Webhooks 1.0.0: the secret of each endpoint, and the headers that prove who sent what, and when.

A secret is not stored but derived from its name (tenant, owner, serial) with a key from the environment: a copy of the
database signs nothing, and whoever has the key can show a secret only by making a new serial. Spec:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence

from shared.config import Settings

PREFIX = "whsec_"
DEFAULT_OWNER = "default"
"""Signs what goes to callback URLs."""


class Signer:
    """Made once per process by `Signer.of`."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of(cls, settings: Settings, deployment_id: str) -> "Signer":
        """Without any secret, which development allows, the deployment's id stands in for one."""
        given = settings.webhook_secret.get_secret_value() or settings.secret.get_secret_value()
        return cls((given or f"development {deployment_id}").encode())

    def secret(self, tenant: str, owner: str, serial: int) -> str:
        """As receivers keep it: `whsec_` and 32 bytes in base64."""
        return PREFIX + b64encode(self._secret(tenant, owner, serial)).decode()

    def headers(
        self, tenant: str, owner: str, serials: Sequence[int], *, message_id: str, at_s: int, body: bytes
    ) -> Mapping[str, str]:
        """One signature for each secret that is good now; a receiver needs to know one of them."""
        signed = b"%s.%d.%s" % (message_id.encode(), at_s, body)
        signatures = [hmac.digest(self._secret(tenant, owner, serial), signed, "sha256") for serial in serials]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join(f"v1,{b64encode(each).decode()}" for each in signatures),
        }

    def _secret(self, tenant: str, owner: str, serial: int) -> bytes:
        name = f"webhook\0{tenant}\0{owner}\0{serial}"
        return hmac.digest(self._key, name.encode(), "sha256")
