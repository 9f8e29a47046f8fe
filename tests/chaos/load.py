"""The callers: each conversation sends its messages one after the other over HTTP, and tries again until accepted.

A try whose answer was lost is repeated under the same Idempotency-Key. Messages are held back at two gates: so many
unfinished jobs at most, and no further than the next fault that has not struck yet.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

from ops.stack.environment import DEVELOPMENT_KEY
from tests.chaos.plan import Plan, Utterance

RETRY_S = 0.1
TIMEOUT_S = 8.0
CALLBACK_URL = "https://callbacks.example/hook"


@dataclass(frozen=True, slots=True)
class Accepted:
    said: Utterance
    job_id: str


@dataclass
class Load:
    """Everything that was accepted, conversation by conversation, in the order it was."""

    plan: Plan
    window: int
    """Unfinished jobs at most."""
    accepted: list[list[Accepted]] = field(default_factory=list)
    repeats: int = 0
    """Tries that got no usable answer."""
    replays: int = 0
    """Repeats whose first try had been accepted unheard."""
    ended: int = 0
    """Jobs over, as the harness last heard."""
    limit: Callable[[], int] = lambda: 1 << 62
    """No more than so many messages may be accepted for now."""
    over: Callable[[], bool] = lambda: False
    """Send nothing more."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _entered: int = 0

    @property
    def count(self) -> int:
        return sum(map(len, self.accepted))

    async def run(self, port: int) -> None:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        headers = {"authorization": f"Bearer {DEVELOPMENT_KEY}"}
        base_url = f"http://127.0.0.1:{port}"
        async with (
            httpx.AsyncClient(base_url=base_url, headers=headers, limits=limits, timeout=TIMEOUT_S) as client,
            asyncio.TaskGroup() as group,
        ):
            for conversation in self.plan.conversations:
                mine: list[Accepted] = []
                self.accepted.append(mine)
                group.create_task(self._talk(client, conversation, mine))

    async def _talk(self, client: httpx.AsyncClient, said: Sequence[Utterance], mine: list[Accepted]) -> None:
        for utterance in said:
            await self._enter()
            if self.over():
                return
            mine.append(Accepted(utterance, await self._accept(client, utterance)))

    async def _enter(self) -> None:
        async with self._changed:
            await self._changed.wait_for(self._may_enter)
            self._entered += 1

    def _may_enter(self) -> bool:
        return self.over() or (self._entered - self.ended < self.window and self._entered < self.limit())

    async def look_again(self) -> None:
        """Something the gates depend on has changed."""
        async with self._changed:
            self._changed.notify_all()

    async def _accept(self, client: httpx.AsyncClient, said: Utterance) -> str:
        body = {"message": said.text, "conversation_id": said.conversation, "user_id": f"user of {said.conversation}"}
        if said.has_callback:
            body["callback_url"] = CALLBACK_URL
        headers = {"idempotency-key": f"chaos-{self.plan.seed}-{said.text}"}
        while True:
            try:
                answer = await client.post(f"/v1/agents/{said.agent}/messages", json=body, headers=headers)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code in (200, 202):
                self.replays += answer.status_code == 200
                job_id: str = answer.json()["id"]
                return job_id
            if answer is not None and answer.status_code < 500:
                raise AssertionError(f"{said.text} was refused: {answer.status_code} {answer.text}")
            self.repeats += 1
            await asyncio.sleep(RETRY_S)
