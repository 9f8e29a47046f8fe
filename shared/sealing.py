"""Credentials at rest: AES-256-GCM under a key from the environment.

A sealed text names its key, so that several can be valid while they are rotated: the first one seals, any opens. What
it belongs to is sealed with it (`about`): a row copied to another channel or tenant opens there no more.
"""

import hashlib
import secrets
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import ConfigError

KEY_BYTES = 32
NONCE_BYTES = 12
_VERSION = "1"


class Unreadable(Exception):
    """None of the keys opens it, or it is not what was sealed."""


class Sealer:
    def __init__(self, keys: str) -> None:
        """`keys`: base64, with commas. Raises ConfigError. None is allowed: then nothing can be sealed or opened."""
        try:
            self._keys = {_name(key): AESGCM(key) for key in _keys(keys)}
        except ValueError:
            raise ConfigError(
                "SWITCHBOARD_CREDENTIALS_KEY must be 32 bytes in base64, or several with commas"
            ) from None

    @property
    def usable(self) -> bool:
        return bool(self._keys)

    def seal(self, text: bytes, *, about: str) -> str:
        """Raises ConfigError without a key."""
        if not self._keys:
            raise ConfigError("SWITCHBOARD_CREDENTIALS_KEY is not set: credentials cannot be kept")
        name, key = next(iter(self._keys.items()))
        nonce = secrets.token_bytes(NONCE_BYTES)
        box = nonce + key.encrypt(nonce, text, about.encode())
        return f"{_VERSION}.{name}.{urlsafe_b64encode(box).decode()}"

    def open(self, sealed: str, *, about: str) -> bytes:
        """Raises Unreadable."""
        version, _, rest = sealed.partition(".")
        name, _, encoded = rest.partition(".")
        key = self._keys.get(name)
        if version != _VERSION or key is None:
            raise Unreadable(f"no key of SWITCHBOARD_CREDENTIALS_KEY has the name {name[:16]!r}")
        try:
            box = urlsafe_b64decode(encoded)
            if urlsafe_b64encode(box).decode() != encoded:
                raise Unreadable("it is not written as we write it")
            return key.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], about.encode())
        except (Error, ValueError, InvalidTag):
            raise Unreadable("it was not sealed so, or for something else") from None

    def is_current(self, sealed: str) -> bool:
        """Whether the first key sealed it."""
        return bool(self._keys) and sealed.startswith(f"{_VERSION}.{next(iter(self._keys))}.")


def credentials_about(tenant: str, channel_id: str) -> str:
    """What a channel's sealed credentials are bound to."""
    return f"{tenant}/{channel_id}"


def are_sealing_keys(text: str) -> bool:
    """Whether `Sealer` takes it."""
    try:
        _keys(text)
    except ValueError:
        return False
    return True


def _keys(text: str) -> list[bytes]:
    keys = [
        b64decode(part.strip(), altchars=b"-_" if set(part) & {"-", "_"} else None, validate=True)
        for part in text.split(",")
        if part.strip()
    ]
    if any(len(key) != KEY_BYTES for key in keys):
        raise ValueError("a key has 32 bytes")
    return keys


def _name(key: bytes) -> str:
    """What names a key beside what it sealed: nothing of the key itself."""
    return hashlib.sha256(b"switchboard credentials key\0" + key).hexdigest()[:8]
