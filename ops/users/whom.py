"""Who is erased, and how that is kept while it is under way: encrypted, by the key that makes the hashes.

The row of an erasure must let whoever comes after a crash go on, and must not be a trace itself.
"""

from base64 import b64encode

import msgspec

from shared.sealing import Sealer
from workers.erasure.subjects import Subjects, address_of


class Whom(msgspec.Struct, kw_only=True):
    """A user with all their conversations, or (user None) one conversation."""

    tenant: str
    user: str | None
    conversations: list[str]

    @property
    def address(self) -> str | None:
        """How a messenger knows them."""
        return address_of(self.user)

    def owns(self, user: str | None, conversation: str | None) -> bool:
        return (self.user is not None and user == self.user) or conversation in self.conversations

    def add(self, found: set[str]) -> bool:
        """Whether some of these conversations are new."""
        new = sorted(found - set(self.conversations))
        self.conversations += new
        return bool(new)


class Seals:
    def __init__(self, keys: list[bytes], subjects: Subjects) -> None:
        self._sealer = Sealer(",".join(b64encode(key).decode() for key in keys))
        self._subjects = subjects

    def seal(self, whom: Whom) -> str:
        return self._sealer.seal(msgspec.json.encode(whom), about=f"erasure {whom.tenant}")

    def open(self, tenant: str, sealed: str) -> Whom:
        """Raises `shared.sealing.Unreadable` when the key it was sealed with is gone."""
        return msgspec.json.decode(self._sealer.open(sealed, about=f"erasure {tenant}"), type=Whom)

    def subject(self, whom: Whom) -> str:
        """What names the erasure itself."""
        return self.subjects(whom)[0]

    def subjects(self, whom: Whom) -> list[str]:
        """All that are fenced; the one that names the erasure first."""
        tenant, subjects = whom.tenant, []
        if whom.user is not None:
            subjects += self._subjects.of_user(tenant, whom.user)
        if whom.address is not None:
            subjects += self._subjects.of_address(tenant, whom.address)
        return subjects + [each for one in whom.conversations for each in self._subjects.of_conversation(tenant, one)]
