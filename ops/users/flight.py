"""What Redis holds of a user, found by looking at every key: no index by user is kept that every message would pay for.

Each look takes out what may go at once and says what is still under way: jobs that were started end through their
workers. Nothing here needs to be repeated in order; looking again finds less each time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from ops.users.whom import Whom
from shared import keys
from shared.budgets import counter_key
from shared.redis import Commands
from shared.scripts import Script
from shared.wire import decode_turn
from workers.maintenance.ends import UNREADABLE as UNREADABLE_ENDS
from workers.maintenance.inbox import UNREADABLE as UNREADABLE_INBOX
from workers.replies.working import Sign

_erase, _erase_counter, _cache_drop = (Script(name) for name in ("erase", "erase_counter", "cache_drop"))

PAGE = 1_000
_STREAMS = (keys.ENDED, keys.INBOX, UNREADABLE_ENDS, UNREADABLE_INBOX)


class Look(msgspec.Struct):
    """What one look found."""

    counts: Counter[str]
    live: int = 0
    """Jobs that a worker has still to end."""
    started: int = 0
    """Jobs under way, later ones included: what they cost may not be in the ledger yet."""
    conversations: set[str] = msgspec.field(default_factory=set)
    """That belong to the user."""
    jobs: set[str] = msgspec.field(default_factory=set)
    """That were taken out."""


class Flight:
    def __init__(self, commands: Commands, cache: Commands | None = None) -> None:
        """`cache`: the server of kept answers, where it is another one."""
        self._commands, self._cache = commands, cache or commands

    async def now_us(self) -> int:
        """By the clock that says when jobs were admitted."""
        seconds, us = await self._commands.run("TIME")
        return int(seconds) * 1_000_000 + int(us)

    async def look(self, whom: Whom, before_us: int) -> Look:
        found = Look(Counter())
        async for names in self._pages(b"*"):
            await asyncio.gather(
                self._jobs(whom, before_us, _of(names, b"sb:job:"), found),
                self._owners(whom, _of(names, f"sb:owner:{whom.tenant}:".encode()), found),
                self._naming(whom, [*_of(names, b"sb:apikey:"), *_of(names, b"sb:channel:")], found),
            )
        for stream in _STREAMS:
            await self._stream(whom, stream, before_us, found)
        await self._working(whom, before_us, found)
        await self._named(whom, found)
        await self.repeats(whom, found.jobs, found.counts)
        return found

    async def repeats(self, whom: Whom, jobs: set[str], counts: Counter[str]) -> None:
        """How a repeated request would be known again holds a digest of what was said. A messenger's does not, and must
        stay: else its next repeat would bring the message back."""
        if not jobs:
            return
        async for names in self._pages(f"sb:idem:{whom.tenant}:*".encode()):
            values = await self._commands.run("MGET", *names)
            gone = [name for name, value in zip(names, values, strict=True) if value and _is_repeat_of(value, jobs)]
            if gone:
                counts["redis_keys"] += int(await self._commands.run("DEL", *gone))

    async def drop_answers(self, whom: Whom) -> int:
        """All kept answers of the tenant: they do not say who asked. Those being asked for now are not kept either."""
        seconds, us = await self._cache.run("TIME")
        await self._cache.run("SET", keys.erased(whom.tenant), int(seconds) * 1_000 + int(us) // 1_000)
        dropped = 0
        async for names in self._pages(f"sb:cache:{whom.tenant}:*".encode(), self._cache):
            answers = [name.decode() for name in names]
            dropped += await _cache_drop(self._cache, [keys.CACHED_ORDER, keys.CACHED_SIZES, *answers], [])
        return dropped

    # --- money --------------------------------------------------------------------------------------------------------

    def counters(self, whom: Whom, at: datetime) -> Mapping[str, datetime | str]:
        """Counters that name them: to the month that they are of, or to the conversation."""
        found: dict[str, datetime | str] = {keys.spent("conv", whom.tenant, one): one for one in whom.conversations}
        if whom.user is not None:
            this = datetime(at.year, at.month, 1, tzinfo=UTC)
            for month in (this, (this - timedelta(days=1)).replace(day=1)):
                found[counter_key("user-month", f"{month:%Y%m}", whom.tenant, whom.user)] = month
        return found

    async def spent(self, counter: str) -> tuple[bytes, bytes] | None:
        """What it says, while nothing is held on it; None: there is none."""
        usd, tokens = await self._commands.run("HMGET", counter, "usd", "tok")
        return None if usd is None else (usd, tokens)

    async def set_spent(self, counter: str, was: tuple[bytes, bytes], now: tuple[int, int]) -> bool:
        """False: it has changed since, or something is held."""
        return bool(await _erase_counter(self._commands, [counter], [*was, *now]))

    # --- one look -----------------------------------------------------------------------------------------------------

    async def _jobs(self, whom: Whom, before_us: int, names: Sequence[bytes], found: Look) -> None:
        run = self._commands.run
        records = await asyncio.gather(*(run("HMGET", name, "tenant", "conv", "user") for name in names))
        for name, (tenant, conversation, user) in zip(names, records, strict=True):
            if tenant != whom.tenant.encode() or not whom.owns(_text(user), _text(conversation)):
                continue
            job_id = name.removeprefix(b"sb:job:").decode()
            argv = [job_id, whom.tenant, conversation, user or "", before_us]
            became, started = await _erase(self._commands, [name.decode()], argv)
            found.started += started
            if whom.user is not None and _text(user) == whom.user and became != b"changed":
                found.conversations.add(conversation.decode())
            if became == b"gone":
                found.jobs.add(job_id)
                found.counts["redis_jobs"] += 1
            elif became != b"later":  # running, or just turning into something else: look again
                found.live += 1

    async def _owners(self, whom: Whom, names: Sequence[bytes], found: Look) -> None:
        if not names or whom.user is None:
            return
        owners = await self._commands.run("MGET", *names)
        for name, owner in zip(names, owners, strict=True):
            if owner == whom.user.encode():
                found.conversations.add(name.removeprefix(f"sb:owner:{whom.tenant}:".encode()).decode())
                found.counts["redis_keys"] += int(await self._commands.run("DEL", name))

    async def _naming(self, whom: Whom, names: Sequence[bytes], found: Look) -> None:
        """Terms of keys and channels, as they were read from Postgres, may name users; they are read again."""
        if not names or whom.user is None:
            return
        quoted = msgspec.json.encode(whom.user)
        values = await self._commands.run("MGET", *names)
        gone = [name for name, value in zip(names, values, strict=True) if value and quoted in value]
        if gone:
            found.counts["redis_keys"] += int(await self._commands.run("DEL", *gone))

    async def _named(self, whom: Whom, found: Look) -> None:
        """Keys that are known by name."""
        tenant, user = whom.tenant, whom.user
        names = [keys.notice(tenant, one) for one in whom.conversations]
        names += [keys.owner(tenant, one) for one in whom.conversations]
        if user is not None:
            names += [keys.rate("user", tenant, user), keys.rate("tier", tenant, user)]
            names += [keys.rate("endpoint", endpoint, tenant, user) for endpoint in ("webhook", "flows")]
        for start in range(0, len(names), PAGE):
            found.counts["redis_keys"] += int(await self._commands.run("DEL", *names[start : start + PAGE]))

    async def _working(self, whom: Whom, before_us: int, found: Look) -> None:
        """Signs of work that nobody has shown to them yet."""
        for raw in await self._commands.run("LRANGE", keys.WORKING, 0, -1):
            try:
                sign = msgspec.json.decode(raw, type=Sign)
            except msgspec.MsgspecError:  # another version's
                continue
            if sign.tenant == whom.tenant and sign.at_us <= before_us and _names(whom, raw):
                found.counts["redis_entries"] += int(await self._commands.run("LREM", keys.WORKING, 1, raw))

    async def _stream(self, whom: Whom, stream: str, before_us: int, found: Look) -> None:
        start = "-"
        while entries := await self._commands.run("XRANGE", stream, start, "+", "COUNT", PAGE):
            for entry_id, entry in entries:
                if not _is_theirs(whom, entry, before_us):
                    continue
                if stream == keys.INBOX:  # others may stand in it too: whoever writes it leaves out what is fenced
                    found.live += int(entry_id.partition(b"-")[0]) * 1_000 <= before_us
                else:
                    found.counts["redis_entries"] += int(await self._commands.run("XDEL", stream, entry_id))
            start = f"({entries[-1][0].decode()}"

    async def _pages(self, pattern: bytes, commands: Commands | None = None) -> AsyncIterator[list[bytes]]:
        commands, cursor = commands or self._commands, 0
        while True:
            reply = await commands.run("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE)
            cursor, names = int(reply[0]), list(reply[1])
            if names:
                yield names
            if not cursor:
                return


def _of(names: Sequence[bytes], prefix: bytes) -> list[bytes]:
    return [name for name in names if name.startswith(prefix)]


def _text(raw: bytes | None) -> str | None:
    return raw.decode() if raw else None


def _is_repeat_of(value: bytes, jobs: set[str]) -> bool:
    job_id, _, fingerprint = value.decode().partition(" ")
    return job_id in jobs and fingerprint != "-"


def _is_theirs(whom: Whom, entry: Mapping[bytes, bytes], before_us: int) -> bool:
    """An end that waits for Postgres, or something that a channel brought."""
    created_us = entry.get(b"created_us")
    if created_us is not None and created_us.isdigit() and int(created_us) > before_us:
        return False
    if b"rows" in entry:
        return entry.get(b"tenant") == whom.tenant.encode() and _names(whom, entry[b"rows"])
    try:
        payload = decode_turn(entry.get(b"payload", b""))
    except msgspec.MsgspecError:  # nobody knows whose it is: whatever names them is taken for theirs
        return _text(entry.get(b"user")) == whom.user is not None or _names(whom, entry.get(b"payload", b""))
    user = payload.user_id or _text(entry.get(b"user"))
    return payload.tenant == whom.tenant and whom.owns(user, payload.conversation_id)


def _names(whom: Whom, raw: bytes) -> bool:
    named: list[Any] = [whom.user, whom.address, *whom.conversations]
    return any(msgspec.json.encode(each) in raw for each in named if each is not None)
