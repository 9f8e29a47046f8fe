"""The Lua scripts, and typed stubs for those that ingress and operators call.

A script is called by its SHA1; a server that does not know it (restart, flush, failover) gets the source once. Every
script starts with `#!lua` flags, followed by `_prelude.lua` and what else it needs of the files with a `_`.
"""

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal

import msgspec
from redis.exceptions import NoScriptError

from shared import keys
from shared.budgets import Scope
from shared.config import Settings
from shared.jobs import JobRecord, from_hash
from shared.rates import UNLIMITED, Limits, Standing
from shared.redis import Argument, Commands
from shared.redis.link import Reply
from shared.wire import MAX_MERGE_WINDOW_S, Event, Policy, TurnPayload, decode_turn, encode_turn

_INCLUDED = {
    **dict.fromkeys(("claim", "finish", "reap"), ("_queue",)),
    **dict.fromkeys(("admit", "stranger"), ("_rates",)),
    **dict.fromkeys(("reserve", "settle"), ("_provider",)),
}
"""What follows the prelude, by script."""


class Script:
    """One script: `await script(commands, keys, argv)`."""

    def __init__(self, name: str) -> None:
        folder = files("shared") / "lua"
        flags, _, body = (folder / f"{name}.lua").read_text().partition("\n")
        included = ("_prelude", *_INCLUDED.get(name, ()))
        parts = [flags, *((folder / f"{each}.lua").read_text() for each in included)]
        self.name = name
        self.source = "\n".join([*parts, body])
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, commands: Commands, keys: Sequence[str], argv: Sequence[Argument]) -> Any:
        try:
            return await commands.run("EVALSHA", self.sha, len(keys), *keys, *argv)
        except NoScriptError:
            return await commands.run("EVAL", self.source, len(keys), *keys, *argv)

    def start(self, commands: Commands, keys: Sequence[str], argv: Sequence[Argument]) -> Reply:
        """By its SHA1 only, not awaited: the reply may be a NoScriptError. Raises Unavailable when it is not sent."""
        return commands.start("EVALSHA", self.sha, len(keys), *keys, *argv)


_admit, _cancel, _read, _events, _forget = (Script(name) for name in ("admit", "cancel", "read", "events", "forget"))


class Idempotency(msgspec.Struct, frozen=True):
    """How a repeated request is recognised.

    `key`: the caller sent an Idempotency-Key. `sdk-first`: an SDK's first try, remembered for its own retries.
    `sdk-retry`: such a retry. `none`: every request is a new job.
    """

    mode: Literal["none", "key", "sdk-first", "sdk-retry"] = "none"
    digest: str = ""
    """Identifies the key, within its tenant and route."""
    fingerprint: str = "-"
    """Identifies the body; another one under the same key is refused."""
    ttl_s: int | None = None
    """How long it is remembered; None: as the settings say for its mode."""


NO_REPEAT = Idempotency()


class Admission(msgspec.Struct, frozen=True):
    """What `admit` decided.

    `accepted`: queued, `position` 0 is the head of its conversation. `replayed`: `job_id` was accepted before.
    `mismatch`: the key was used with another body. `owner`: the conversation is another user's. `busy`: it has
    unfinished messages and the policy is `reject`. `full`: try later. `limited`: a window is full (`refused_by`), the
    one with the longest wait if several are. `spent`: a budget is (`refused_by`), the narrowest one.
    """

    outcome: Literal["accepted", "replayed", "mismatch", "owner", "busy", "full", "limited", "spent"]
    job_id: str
    position: int
    created_us: int
    user_id: str | None
    windows: tuple[Standing, ...] = ()
    """Of those that were asked about, in their order, as they stand after this message."""
    refused_by: Standing | Scope | None = None


async def read_events(
    commands: Commands, job_id: str, *, after: int = 0, count: int = 1_000_000
) -> tuple[int, list[Event]]:
    """The number of a job's newest event (0: none is known), and those after number `after`. Raises Unavailable.

    About `count` at most; when fewer come, there are no more.
    """
    newest, *flat = await _events(commands, [keys.job(job_id), keys.events(job_id)], [after, count])
    parts = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return int(newest), [Event(int(seq), kind.decode(), data.decode()) for seq, kind, data in parts]


CancelOutcome = Literal["unknown", "ended", "cancelled", "requested"]


class Intake:
    """What ingress asks of Redis: accept a job, look at one, cancel one. One round trip each."""

    def __init__(self, commands: Commands, settings: Settings) -> None:
        self._commands = commands
        self._settings = settings

    async def admit(
        self,
        payload: TurnPayload,
        *,
        ttl_s: int,
        enqueued_ms: int,
        idempotency: Idempotency | None = None,
        policy: Policy = "queue",
        merge_window_s: float = 0.0,
        limits: Limits = UNLIMITED,
    ) -> Admission:
        """Accept one message. Repeating the call with the same `payload.job_id` is safe: it is counted once in the
        windows of `limits`, as a repeated request is, and a refused one never. Raises Unavailable.

        With the policy `merge` it waits `merge_window_s` for another one, at most MAX_MERGE_WINDOW_S altogether.
        """
        question = self._question(payload, ttl_s, enqueued_ms, idempotency or NO_REPEAT, policy, merge_window_s, limits)
        return admission_of(limits, await _admit(self._commands, *question))

    def asked(
        self,
        payload: TurnPayload,
        *,
        ttl_s: int,
        enqueued_ms: int,
        policy: Policy,
        merge_window_s: float,
        limits: Limits,
    ) -> Reply:
        """`admit` under way, of a message that is nobody's repeat: its reply is for `admission_of`, or any error of
        Redis, one that `admit` would have mended among them. Raises Unavailable when it is not sent."""
        question = self._question(payload, ttl_s, enqueued_ms, NO_REPEAT, policy, merge_window_s, limits)
        return _admit.start(self._commands, *question)

    def _question(
        self,
        payload: TurnPayload,
        ttl_s: int,
        enqueued_ms: int,
        repeat: Idempotency,
        policy: Policy,
        merge_window_s: float,
        limits: Limits,
    ) -> tuple[list[str], list[Argument]]:
        """Keys and arguments of `admit.lua`."""
        settings, job_id = self._settings, payload.job_id
        usual_ttl_s = settings.idempotency_ttl_s if repeat.mode == "key" else settings.sdk_retry_ttl_s
        names = keys.of_message(payload.queue, payload.tenant, payload.conversation_id, job_id, repeat.digest)
        if limits is not UNLIMITED:
            names += limits.keys
        argv: list[Argument] = [
            job_id,
            encode_turn(payload, enqueued_ms=enqueued_ms),
            ttl_s * 1000,
            settings.max_queue_depth,
            payload.user_id or "",
            OWNER_TTL_S,
            repeat.mode,
            (repeat.ttl_s or usual_ttl_s) * 1000,
            repeat.fingerprint,
            policy,
            int(merge_window_s * 1000),
            int(MAX_MERGE_WINDOW_S * 1000),
            settings.result_ttl_s,
            *(_NO_LIMITS if limits is UNLIMITED else limits.arguments),
            *record_fields(payload),
        ]
        return names, argv

    async def read(self, job_id: str) -> JobRecord | None:
        """The job as Redis knows it; None once forgotten (ask Postgres then) or never known. Raises Unavailable."""
        flat, position = await _read(self._commands, [keys.job(job_id)], [job_id])
        return from_hash(job_id, dict(zip(flat[::2], flat[1::2], strict=True)), position) if flat else None

    async def cancel(self, tenant: str, job_id: str) -> CancelOutcome:
        """`cancelled`: it never started and is over. `requested`: its worker will end it. Raises Unavailable."""
        settings = self._settings
        argv: list[Argument] = [job_id, tenant, settings.result_ttl_s]
        outcome: CancelOutcome = (await _cancel(self._commands, [keys.job(job_id)], argv)).decode()
        return outcome

    async def forget(self, tenant: str, job_id: str) -> None:
        """Show the job as a response no longer, for as long as Redis remembers it. Raises Unavailable."""
        await _forget(self._commands, [keys.job(job_id)], [tenant])

    async def payload(self, job_id: str) -> TurnPayload | None:
        """What was asked, until the job has ended. Raises Unavailable, and msgspec's error for an unreadable one."""
        raw = await self._commands.run("GET", keys.arq_job(job_id))
        return decode_turn(raw) if raw else None


_NO_LIMITS = UNLIMITED.arguments
OWNER_TTL_S = 30 * 86_400
"""How long Redis remembers whose a conversation is after its last message; Postgres knows it for good."""


def admission_of(limits: Limits, reply: Sequence[Any]) -> Admission:
    """What `admit.lua` answered."""
    return _admission(limits, *reply)


def _admission(
    limits: Limits,
    outcome: bytes,
    job_id: bytes,
    position: int,
    created_us: bytes,
    user: bytes,
    which: int,
    *rooms: int,
) -> Admission:
    said: Any = outcome.decode()
    windows = limits.standings(rooms)
    refused_by: Standing | Scope | None = None
    if which:
        refused_by = windows[which - 1] if said == "limited" else limits.budgets[which - 1]
    owner = user.decode() if user else None
    return Admission(said, job_id.decode(), position, int(created_us or 0), owner, windows, refused_by)


def record_fields(payload: TurnPayload) -> list[Argument]:
    """What the record of a job says of its message, for a script."""
    tenant, agent, conversation_id = payload.tenant, payload.agent, payload.conversation_id
    fields: list[Argument] = ["tenant", tenant, "agent", agent, "conv", conversation_id, "run", 1]
    if payload.metadata:
        fields += ["metadata", msgspec.json.encode(payload.metadata)]
    if payload.asked is not None:
        fields += ["asked", msgspec.json.encode(payload.asked.shown())]
    return fields
