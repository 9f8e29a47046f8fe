"""What channels brought that is no message to answer (statuses, unknown things) becomes rows in Postgres.

The ingress appends it to `sb:inbox` with the messages of the same request; here it is written and only then removed. A
crash in between writes the same rows again, which counts them once more and changes nothing else. Run by whichever
worker's claim saw some waiting.
"""

import logging
from typing import Any

import msgspec

from shared import keys
from shared.db import Pool, jsonb
from shared.errors import Unavailable
from shared.redis import Commands
from sql import queries
from workers.erasure.subjects import Subjects

logger = logging.getLogger("switchboard.inbox")

BATCH = 100
UNREADABLE = "sb:inbox:unreadable"
"""What cannot be written; kept for a person to look at."""
MAX_UNREADABLE = 10_000


class InboxWriter:
    def __init__(self, commands: Commands, pool: Pool, subjects: Subjects) -> None:
        self._commands, self._pool, self._subjects = commands, pool, subjects

    async def drain(self) -> None:
        """All there is. Raises Unavailable; what is left stays for the next time."""
        while entries := await self._commands.run("XRANGE", keys.INBOX, "-", "+", "COUNT", BATCH):
            for entry_id, entry in entries:
                await self._write(entry)
                await self._commands.run("XDEL", keys.INBOX, entry_id)

    def _fenced(self, tenant: str, row: dict[str, Any]) -> dict[str, Any]:
        """With what tells whether it is about somebody who was erased meanwhile."""
        named = [row.get("recipient"), row.get("payload")]
        return {**row, "subjects": self._subjects.of_document(tenant, named)}

    async def _write(self, entry: dict[bytes, bytes]) -> None:
        try:
            tenant = entry[b"tenant"].decode()
            rows = [self._fenced(tenant, row) for row in msgspec.json.decode(entry[b"rows"], type=list[dict[str, Any]])]
            await self._pool.fetchval(queries["note_inbound"], tenant, jsonb(rows))
        except Unavailable:
            raise
        except Exception:  # one that cannot be written must not hold up the others
            logger.exception("what a channel brought cannot be written")
            flat = [part for pair in entry.items() for part in pair]
            await self._commands.run("XADD", UNREADABLE, "MAXLEN", "~", MAX_UNREADABLE, "*", *flat)
