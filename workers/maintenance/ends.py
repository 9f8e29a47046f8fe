"""Ends that happened in Redis alone (expired, cancelled before a start) become rows in Postgres.

`end_unstarted` in Lua appends each with its payload to `sb:ended`; here they are written and only then removed. A crash
in between writes the same row again, which changes nothing. Run by whichever worker's claim saw ends waiting.
"""

import logging

import msgspec

from shared import keys
from shared.db import Pool, jsonb
from shared.errors import Unavailable
from shared.jobs import JobError
from shared.redis import Commands
from shared.wire import decode_turn
from sql import queries
from workers.turn.store import TurnEnd

logger = logging.getLogger("switchboard.ends")

BATCH = 100
UNREADABLE = "sb:ended:unreadable"
"""Ends that cannot be written; kept for a person to look at."""


class EndsWriter:
    def __init__(self, commands: Commands, pool: Pool) -> None:
        self._commands = commands
        self._pool = pool

    async def drain(self) -> None:
        """Until none is left. Raises Unavailable; what is left stays for the next time.

        Several workers may be at it at once: each row is written once all the same, and nothing has to be locked in
        a Redis that may be full of what is drained here.
        """
        while entries := await self._commands.run("XRANGE", keys.ENDED, "-", "+", "COUNT", BATCH):
            for entry_id, entry in entries:
                await self._write(entry)
                await self._commands.run("XDEL", keys.ENDED, entry_id)

    async def _write(self, entry: dict[bytes, bytes]) -> None:
        try:
            tenant, end = _turn_end(entry)
            await self._pool.fetchrow(queries["end_job"], tenant, jsonb(end))
        except Unavailable:
            raise
        except Exception:  # one that cannot be written must not hold up the others
            logger.exception("end of job %s cannot be written", entry.get(b"id"))
            flat = [part for pair in entry.items() for part in pair]
            await self._commands.run("XADD", UNREADABLE, "*", *flat)


def _turn_end(entry: dict[bytes, bytes]) -> tuple[str, TurnEnd]:
    payload = decode_turn(entry[b"payload"])
    return payload.tenant, TurnEnd(
        job_id=payload.job_id,
        run=int(entry[b"run"]),
        state=entry[b"state"].decode(),
        agent=payload.agent,
        queue=payload.queue,
        conversation_id=payload.conversation_id,
        user_id=payload.user_id,
        message=payload.message,
        metadata=payload.metadata,
        domain=payload.domain,
        feature=payload.feature,
        callback_url=payload.callback_url,
        memory=False,
        attempts=0,
        claim=None,
        attempt_errors=[],
        created_us=int(entry[b"created_us"]),
        started_us=None,
        finished_us=int(entry[b"finished_us"]),
        error=msgspec.json.decode(entry[b"error"], type=JobError),
        payload=payload,
    )
