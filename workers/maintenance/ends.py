"""Ends that happened in Redis alone (expired, cancelled before a start) become rows in Postgres.

`end_unstarted` in Lua appends each with its payload to `sb:ended`; here they are written and only then removed. A crash
in between writes the same row again, which changes nothing. Run by whichever worker's claim saw ends waiting.
"""

import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from shared import keys
from shared.db import Pool, jsonb
from shared.errors import Unavailable
from shared.jobs import JobError
from shared.redis import Commands
from shared.wire import decode_turn
from sql import queries
from workers.erasure.subjects import Subjects
from workers.turn import taken_in
from workers.turn.store import TurnEnd
from workers.turn.witness import never_started

logger = logging.getLogger("switchboard.ends")

BATCH = 100
PAUSE_S = 0.5
"""Before another look at ends that wait for an older message: every claim says that there are some."""
UNREADABLE = "sb:ended:unreadable"
"""Ends that cannot be written; kept for a person to look at."""


class EndsWriter:
    """`on_end(job id, state)` is told of each job whose end was written here, once."""

    def __init__(
        self, commands: Commands, pool: Pool, subjects: Subjects, on_end: Callable[[str, str], Awaitable[None]]
    ) -> None:
        self._commands = commands
        self._pool = pool
        self._subjects = subjects
        self._on_end = on_end
        self._next_look_s = 0.0

    async def drain(self) -> None:
        """All that may be written now. Raises Unavailable; what is left stays for the next time.

        What ended behind a job that still runs waits for that one's end, so that the history of the conversation is in
        the order it was said. Several workers may be at it at once: each row is written once all the same, and nothing
        has to be locked in a Redis that may be full of what is drained here.
        """
        if time.monotonic() < self._next_look_s:
            return
        start, early = "-", False
        while entries := await self._commands.run("XRANGE", keys.ENDED, start, "+", "COUNT", BATCH):
            for entry_id, entry in entries:
                if await self._write(entry):
                    await self._commands.run("XDEL", keys.ENDED, entry_id)
                else:
                    early = True
            start = f"({entries[-1][0].decode()}"
        self._next_look_s = time.monotonic() + PAUSE_S if early else 0.0

    async def _write(self, entry: dict[bytes, bytes]) -> bool:
        """Whether it is over and done with."""
        try:
            end = _UnstartedEnd(entry)
            if await self._is_early(end):
                return False
            row = await self._pool.fetchrow(queries["end_job"], end.payload.tenant, jsonb(end.turn_end(self._subjects)))
            if row is not None and row["won"]:
                end.tell()
                for job_id, state in end.jobs():
                    await self._on_end(job_id, state)
        except Unavailable:
            raise
        except Exception:  # one that cannot be written must not hold up the others
            logger.exception("end of job %s cannot be written", entry.get(b"id"))
            flat = [part for pair in entry.items() for part in pair]
            await self._commands.run("XADD", UNREADABLE, "*", *flat)
        return True

    async def _is_early(self, end: "_UnstartedEnd") -> bool:
        """Whether an older message of its conversation is still to be answered."""
        conversation = keys.conversation(end.payload.tenant, end.payload.conversation_id)
        head = await self._commands.run("LINDEX", conversation, 0)
        if head is None:
            return False
        created_us = await self._commands.run("HGET", keys.job(head.decode()), "created_us")
        return created_us is not None and int(created_us) < end.created_us


class _UnstartedEnd:
    """An entry of `sb:ended`. Raises msgspec.MsgspecError, KeyError or ValueError for one that cannot be read."""

    def __init__(self, entry: dict[bytes, bytes]) -> None:
        self.payload = decode_turn(entry[b"payload"])
        self.run, self.created_us = int(entry[b"run"]), int(entry[b"created_us"])
        self.survivor = taken_in.Survivor(
            self.payload.job_id,
            entry[b"state"].decode(),
            msgspec.json.decode(entry[b"error"], type=JobError),
            self.payload.user_id or entry.get(b"user", b"").decode() or None,
            int(entry[b"finished_us"]),
        )
        self.told = entry.get(b"notice") != b"0"
        """Whether its sender learns of it; of refusals in a row only the first is told (reject.lua)."""
        # Lua's JSON of an empty list is an object
        taken = msgspec.json.decode(entry.get(b"taken_in", b"{}"), type=list[str] | dict[str, str])
        self.taken_in = taken_in.read([each.encode() for each in taken], self.payload)

    def turn_end(self, subjects: Subjects) -> TurnEnd:
        payload, survivor = self.payload, self.survivor
        return TurnEnd(
            job_id=payload.job_id,
            run=self.run,
            state=survivor.state,
            agent=payload.agent,
            queue=payload.queue,
            conversation_id=payload.conversation_id,
            user_id=survivor.user_id,
            message=payload.message,
            metadata=payload.metadata,
            domain=payload.domain,
            feature=payload.feature,
            callback_url=payload.callback_url if self.told else None,
            asked=payload.asked and payload.asked.kept(),
            memory=False,
            attempts=0,
            claim=None,
            attempt_errors=[],
            created_us=self.created_us,
            started_us=None,
            finished_us=survivor.finished_us,
            error=survivor.error,
            payload=taken_in.kept(payload, self.taken_in),
            taken_in=taken_in.ends(self.taken_in, survivor),
            subjects=subjects.of_turn(payload.tenant, survivor.user_id, payload.conversation_id),
        )

    def jobs(self) -> list[tuple[str, str]]:
        """Everyone that ended here: id and state."""
        earlier = [(one.job_id, one.state) for one in taken_in.ends(self.taken_in, self.survivor)]
        return [*earlier, (self.survivor.job_id, self.survivor.state)]

    def tell(self) -> None:
        """One wide line, and a count, for each job that ended here."""
        never_started(self.payload, self.survivor.state)
        for one in self.taken_in:
            never_started(one.payload, one.state)
