"""Typed stubs of the scripts a worker calls. Argument order and meaning are in the header of each shared/lua/*.lua."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, field
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.errors import Unavailable
from shared.redis import Argument, Commands
from shared.scripts import Script
from workers.queue.verdicts import Fields

_claim, _finish, _emit, _beat = (Script(name) for name in ("claim", "finish", "emit", "beat"))

MAX_CLAIM = 100
"""Jobs one call takes at most: while the server works on the next ones, the worker runs these."""


class Claimed(Struct, eq=False):
    """One attempt at one job, as `claim` handed it out, and what happens to it while it runs here."""

    id: str
    score: str
    """Unix ms of its original place in the queue, exactly as Redis wrote it."""
    attempt: int
    payload: bytes | None
    created_us: int | None
    """None for a job that did not come through `admit` (a stock arq client's, a cron job)."""
    run: int
    started_us: int
    """When its first attempt started."""
    cancelled: bool
    """Its caller wants it ended; also set while it runs."""
    user_id: str | None
    errors: bytes | None
    """JSON array of earlier attempts' errors."""
    open_calls: Mapping[str, bytes]
    """Model calls of earlier attempts whose ledger rows Postgres does not have: call id → row (JSON)."""
    holds: Mapping[str, bytes]
    """Of those, what is still reserved for them (JSON)."""
    taken_in: Sequence[bytes] = ()
    """Messages in this job's turn, oldest first: `<state> <id> <created_us> <taken in us> <payload>`."""
    claim: str = ""
    """When it was taken, Unix µs by Redis's clock: names this attempt in every fence."""
    worker: str = ""
    lost: bool = False
    """The lease is gone: whatever this attempt still does must change nothing."""
    concluded: bool = False
    """How it ended is told to Redis, or was."""
    told: bool = False
    """Redis has answered."""

    @property
    def first(self) -> bool:
        """Nobody had it before in this run: there is no earlier attempt to fence off."""
        return str(self.started_us) == self.claim


class Claims(Struct, frozen=True):
    """What a claim brought `worker`. `next_ms`: until something is due again, None when nothing is known to be."""

    worker: str
    jobs: list[Claimed]
    held: int
    """Jobs Redis counts as this worker's, the new ones included."""
    next_ms: float | None
    ends_waiting: bool
    """Ends of never-started jobs wait in Redis for someone to take them to Postgres."""


class Finish(Struct, frozen=True):
    """One attempt's end, for `finish`."""

    id: str
    claim: str
    verb: Literal["end", "retry", "release"]
    delay_ms: int = 0
    keep_ms: int = -1
    posted: bool = True
    result: bytes = b""
    result_ms: int = 0
    text: str = ""
    """What the attempt said last, for its readers."""
    fields: Fields = field(default_factory=dict)

    def argv(self) -> list[Argument]:
        flat = [part for pair in self.fields.items() for part in pair]
        head: list[Argument] = [self.id, self.claim, self.verb, self.delay_ms, self.keep_ms, int(self.posted)]
        text = delta(self.text) if self.text else ""
        return [*head, self.result, self.result_ms, text, len(self.fields), *flat]


def delta(text: str) -> str:
    """The data of a `message.delta`."""
    return msgspec.json.encode({"delta": text}).decode()


class _OneByOne(Commands):
    """Each command by itself, with the client's own retries and redis-py's own errors: how arq polls."""

    async def run(self, *command: Argument) -> Any:
        client: Any = self.redis  # redis-py does not type this one
        return await client.execute_command(*command)


class QueueScripts:
    """One queue as its workers see it; every method is one round trip.

    When Redis is away `beat`, `claim` and `held` raise redis-py's errors, as arq's poll does, the others Unavailable.
    """

    def __init__(
        self,
        commands: Commands,
        queue: str,
        *,
        in_progress_ms: int,
        max_events: int,
        result_ttl_s: int,
        poll_as_arq: bool = False,
    ) -> None:
        self.queue = queue
        self.commands = commands
        self._polling = _OneByOne(commands.redis) if poll_as_arq else commands
        self._in_progress_ms = in_progress_ms
        self._max_events = max_events
        self._result_ttl_s = result_ttl_s

    async def beat(
        self, worker: str, lease_ms: int, verb: Literal["join", "beat", "leave"], *, slots: int = 0
    ) -> list[str] | None:
        """Ids this worker should cancel; None when its lease is lost. Who joins says how many `slots` it has."""
        alive, *ids = await self._poll(_beat, [worker, lease_ms, verb, slots])
        return [job_id.decode() for job_id in ids] if alive else None

    async def claim(self, worker: str, n: int, *, only: Sequence[str] = ()) -> Claims | None:
        """At most `n` due jobs, of `only` when given; None when this worker has no lease."""
        return self.claims(worker, await self._poll(_claim, [*self._claiming(worker, n), *only]))

    def claim_command(self, worker: str, n: int) -> tuple[Argument, ...]:
        """`claim` as a command, for a connection of one's own; `claims` reads its reply. Fails where the script is not
        known, which `claim` mends."""
        return ("EVALSHA", _claim.sha, 1, self.queue, *self._claiming(worker, n))

    def claims(self, worker: str, reply: Any) -> Claims | None:
        return None if reply == b"LOST" else _claims(reply, worker)

    def _claiming(self, worker: str, n: int) -> list[Argument]:
        return [worker, n, self._in_progress_ms, self._max_events, self._result_ttl_s]

    async def wake(self) -> None:
        """A token for whoever waits first: there may be more to take. Raises Unavailable."""
        await self.commands.run("LPUSH", f"{self.queue}:wake", 1)

    async def held(self, worker: str) -> dict[str, str]:
        """Jobs Redis counts as this worker's: id → claim."""
        pairs: Any = await self.commands.redis.hgetall(f"{self.queue}:held:{worker}")  # type: ignore[misc]  # redis-py types both worlds at once
        return {job_id.decode(): claim.decode() for job_id, claim in pairs.items()}

    async def _poll(self, script: Script, argv: Sequence[Argument]) -> Any:
        try:
            return await script(self._polling, [self.queue], argv)
        except Unavailable as error:
            raise RedisConnectionError(str(error)) from error

    async def finish(self, worker: str, ends: Sequence[Finish], claim_n: int) -> tuple[list[bool], Claims | None]:
        """Whether each attempt was still ours, and what was claimed in the same call (None: nothing was asked)."""
        argv: list[Argument] = [worker, self._max_events, self._result_ttl_s, claim_n, self._in_progress_ms]
        for end in ends:
            argv += end.argv()
        verdicts, claimed = await _finish(self.commands, [self.queue], argv)
        return [verdict == b"OK" for verdict in verdicts], _claims(claimed, worker) if claimed else None

    async def emit(self, worker: str, events: Sequence[tuple[str, str, str, str]]) -> set[str]:
        """Append (id, claim, type, JSON) events; returns the ids that are not this worker's any more."""
        argv: list[Argument] = [worker, self._max_events, *(part for event in events for part in event)]
        return {job_id.decode() for job_id in await _emit(self.commands, [self.queue], argv)}


def _claims(reply: list[Any], worker: str) -> Claims:
    next_ms, ends_waiting, held, claim, *jobs = reply
    return Claims(
        worker,
        [_claimed(job, worker, claim.decode()) for job in jobs],
        held,
        next_ms=None if next_ms < 0 else float(next_ms),
        ends_waiting=bool(ends_waiting),
    )


def _claimed(reply: list[Any], worker: str, claim: str) -> Claimed:
    job_id, score, attempt, payload, created_us, run, started_us, cancel, user, errors, calls, taken_in = reply
    fields = {name.decode(): value for name, value in zip(calls[::2], calls[1::2], strict=True)}
    holds = {name.removesuffix(keys.HOLD): fields.pop(name) for name in list(fields) if name.endswith(keys.HOLD)}
    return Claimed(
        id=job_id.decode(),
        score=score.decode(),
        attempt=attempt,
        payload=payload,
        created_us=int(created_us) if created_us else None,
        run=int(run or 1),
        started_us=int(started_us),
        cancelled=cancel == b"1",
        user_id=user.decode() if user else None,
        errors=errors,
        open_calls=fields,
        holds=holds,
        taken_in=taken_in,
        claim=claim,
        worker=worker,
    )
