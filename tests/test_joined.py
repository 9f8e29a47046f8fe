"""Questions of the same moment share a statement, and nobody pays for somebody else's."""

import asyncio
from collections.abc import Sequence

import pytest

from workers import joined
from workers.joined import Joined


class Server:
    """Answers n with 10 n, when it is let; remembers what was asked together."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.refused: set[int] = set()

    def joined(self, most: int = 32) -> Joined[int, int]:
        return Joined(self.all_of, self.one, most=most)

    async def all_of(self, questions: Sequence[int]) -> list[int]:
        self.asked.append(tuple(questions))
        await self.open.wait()
        if self.refused & set(questions):
            raise ValueError("one of them")
        return [10 * n for n in questions]

    async def one(self, question: int) -> int:
        return (await self.all_of([question]))[0]


async def tick(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_questions_of_one_tick_go_together() -> None:
    server = Server()
    ask = server.joined()
    assert await asyncio.gather(*map(ask, (1, 2, 3))) == [10, 20, 30]
    assert server.asked == [(1, 2, 3)]


async def test_what_is_asked_meanwhile_goes_next() -> None:
    server = Server()
    ask = server.joined(most=2)
    server.open.clear()
    first = ask(1)
    await tick()
    later = [ask(n) for n in (2, 3, 4)]
    await tick()
    assert server.asked == [(1,)]
    server.open.set()
    assert await asyncio.gather(first, *later) == [10, 20, 30, 40]
    assert server.asked == [(1,), (2, 3), (4,)]


async def test_a_statement_that_takes_long_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "PATIENCE_S", 0.0)
    server = Server()
    ask = server.joined()
    server.open.clear()
    stuck = ask(1)
    await tick()
    server.open = asyncio.Event()
    server.open.set()
    assert await ask(2) == 20
    assert not stuck.done()
    stuck.cancel()


async def test_no_two_with_one_key_go_together() -> None:
    server = Server()
    ask = server.joined()
    assert await asyncio.gather(ask(1, "a"), ask(2, "a"), ask(3, "b")) == [10, 20, 30]
    assert server.asked == [(1, 3), (2,)]


async def test_a_failure_is_only_whose_it_is() -> None:
    server = Server()
    server.refused = {2}
    ask = server.joined()
    found = await asyncio.gather(*map(ask, (1, 2, 3)), return_exceptions=True)
    assert [type(each) if isinstance(each, Exception) else each for each in found] == [10, ValueError, 30]
    assert server.asked == [(1, 2, 3), (1,), (2,), (3,)]


async def test_one_that_went_away_is_not_asked() -> None:
    server = Server()
    ask = server.joined()
    gone, there = ask(1), ask(2)
    gone.cancel()
    assert await there == 20
    assert server.asked == [(2,)]
