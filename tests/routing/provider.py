"""A provider as `_provider.lua` sees it, on a real server and by a clock of the test's own."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

START_MS = 1_800_000_000_000
NONE = "-"

_lua = files("shared") / "lua"
_flags, _, _body = (Path(__file__).with_name("limits.lua")).read_text().partition("\n")
SOURCE = "\n".join([_flags, (_lua / "_prelude.lua").read_text(), (_lua / "_provider.lua").read_text(), _body])
SHA = hashlib.sha1(SOURCE.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Answer:
    """`kind` is `held`, `busy` or `down`; `why` the reason, or what `give` needs."""

    kind: str
    wait_ms: int
    why: str
    call_id: str


@dataclass
class Provider:
    """One model of one provider and its terms. `now_ms` is the time, to be moved by the test."""

    redis: Redis
    slots: int | str = NONE
    rpm: int | str = NONE
    tpm: int | str = NONE
    patience_ms: int = 2_000
    failures: int = 5
    window_ms: int = 30_000
    cooldown_ms: int = 10_000
    now_ms: int = START_MS
    name: str = "openai"
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def ask(
        self, tokens: int = 100, *, model: str = "m", worker: str = "w1", call_id: str | None = None, output: int = 50
    ) -> Answer:
        call_id = call_id or f"call-{next(self.ids):04x}"
        limits = (self.slots, self.rpm, self.tpm, self.patience_ms)
        terms = (*limits, self.failures, self.window_ms, self.cooldown_ms, tokens - output, output)
        argv = (self.now_ms, "ask", self.name, model, tokens, " ".join(map(str, terms)), call_id, worker)
        kind, wait_ms, why = await self._run(*argv)
        return Answer(kind.decode(), wait_ms, why.decode(), call_id)

    async def give(self, held: Answer, told: str = "", *, tokens: int = 100) -> None:
        assert held.kind == "held", held
        await self._run(self.now_ms, "give", held.why, held.call_id, tokens, told)

    async def call(self, told: str, **how: object) -> Answer:
        """Asked, made, and over."""
        held = await self.ask(**how)  # type: ignore[arg-type]
        await self.give(held, told)
        return held

    async def lease(self, worker: str, *, until_ms: int | None = None) -> None:
        await self.redis.zadd("arq:queue:leases", {worker: until_ms or self.now_ms + 1_000_000})

    async def _run(self, *argv: object) -> object:
        given = [str(value) for value in argv]
        try:
            return await self.redis.execute_command("EVALSHA", SHA, 0, *given)
        except NoScriptError:
            return await self.redis.execute_command("EVAL", SOURCE, 0, *given)


OK, FAIL, NEUTRAL, ACCOUNT = "ok - -", "fail - -", "", "account 300000"
