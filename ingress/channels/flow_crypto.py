"""The encryption of WhatsApp Flows' endpoint: Meta's key exchange, as its own example server does it.

The phone makes an AES-128 key for each request and encrypts it to our public RSA key (OAEP, SHA-256). The answer goes
back under the same key, with every bit of the initial vector flipped.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.channels.reading import Malformed, member, read_object

_OAEP = OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)


class CannotDecrypt(Exception):
    """None of our keys opens it: the phone should fetch our public key anew."""


class Exchange(NamedTuple):
    """One request, opened; `seal` makes its answer."""

    request: dict[str, Any]
    key: bytes
    vector: bytes

    def seal(self, answer: Any) -> bytes:
        flipped = bytes(byte ^ 0xFF for byte in self.vector)
        return b64encode(AESGCM(self.key).encrypt(flipped, msgspec.json.encode(answer), None))


def opened(body: bytes, private_keys: Sequence[str]) -> Exchange:
    """`private_keys` are PEM, any may open it. Raises CannotDecrypt."""
    try:
        envelope = read_object(body)
        data, sealed_key, vector = (
            b64decode(member(envelope, name, str), validate=True)
            for name in ("encrypted_flow_data", "encrypted_aes_key", "initial_vector")
        )
    except ValueError as error:
        raise CannotDecrypt(f"the envelope cannot be read: {error}") from None
    for pem in private_keys:
        try:
            key = private_key(pem).decrypt(sealed_key, _OAEP)
            return Exchange(read_object(AESGCM(key).decrypt(vector, data, None)), key, vector)
        except (ValueError, InvalidTag):  # Malformed is a ValueError: what another key opens by chance
            continue
    raise CannotDecrypt("none of the keys opens it")


@lru_cache(maxsize=1_024)
def private_key(pem: str) -> RSAPrivateKey:
    """Raises ValueError for what is no RSA key."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (TypeError, ValueError) as error:
        raise Malformed(f"it is no private key: {error}") from None
    if not isinstance(key, RSAPrivateKey):
        raise Malformed("it is no RSA key")
    return key
