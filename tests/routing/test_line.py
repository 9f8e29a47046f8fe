"""Waiting for a busy provider: one of a line asks, in the order they came, and nobody waits longer than needed."""

import asyncio
from collections import deque

import pytest

from tests.conftest import Eventually
from workers.routing import line
from workers.routing.line import Lines


class Slots:
    """A provider with so many; counts how often it is asked."""

    def __init__(self, lines: Lines, free: int) -> None:
        self.lines, self.free, self.asked = lines, free, 0
        self.taken: deque[str] = deque()

    def ask(self) -> bool:
        self.asked += 1
        if self.free == 0:
            return False
        self.free -= 1
        return True

    def give(self) -> None:
        self.free += 1
        self.lines.freed("p")

    async def turn(self, name: str, retry_after_s: float = 60.0) -> None:
        async with self.lines.place("p") as place:
            while not self.ask():
                await place.wait("p", retry_after_s)
        self.taken.append(name)


@pytest.fixture
def slots() -> Slots:
    return Slots(Lines(), 0)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "LONGEST_SLEEP_S", 3_600.0)  # nobody wakes by himself


async def start(slots: Slots, *names: str) -> list["asyncio.Task[None]"]:
    tasks = []
    for name in names:
        tasks.append(asyncio.ensure_future(slots.turn(name)))
        await asyncio.sleep(0)
    return tasks


async def test_one_asks_however_many_wait_and_they_are_served_in_order(slots: Slots, eventually: Eventually) -> None:
    tasks = await start(slots, *"abcdef")
    await eventually(lambda: slots.asked == 1)
    for n in range(1, 7):
        slots.give()
        await eventually(lambda n=n: len(slots.taken) == n)
    assert list(slots.taken) == list("abcdef")
    assert slots.asked <= 2 * 6 + 1
    assert all(task.done() for task in tasks)


async def test_whoever_comes_later_does_not_overtake(slots: Slots, eventually: Eventually) -> None:
    await start(slots, "first")
    await eventually(lambda: slots.asked == 1)
    slots.free = 1  # freed by another process: nobody here was told
    late = await start(slots, "late")
    for _ in range(20):  # all that can happen without news has happened then
        await asyncio.sleep(0)
    assert (slots.asked, list(slots.taken)) == (1, [])
    slots.lines.freed("p")
    await eventually(lambda: list(slots.taken) == ["first"])
    slots.give()
    await asyncio.wait(late)
    assert list(slots.taken) == ["first", "late"]


async def test_one_that_is_cancelled_leaves_its_place_to_the_next(slots: Slots, eventually: Eventually) -> None:
    first, second, third = await start(slots, *"abc")
    await eventually(lambda: slots.asked == 1)
    for task in (second, first):
        task.cancel()
    await asyncio.wait([first, second])
    slots.give()
    await asyncio.wait([third])
    assert list(slots.taken) == ["c"]


async def test_without_news_it_asks_again_by_itself(
    slots: Slots, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(line, "LONGEST_SLEEP_S", 0.005)
    task = asyncio.ensure_future(slots.turn("a"))
    await eventually(lambda: slots.asked >= 3)
    slots.free = 1
    await asyncio.wait([task])


async def test_lines_of_providers_are_apart(eventually: Eventually) -> None:
    slots = Slots(Lines(), 0)
    waiting = await start(slots, "a")
    await eventually(lambda: slots.asked == 1)
    async with slots.lines.place("another"):
        pass
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
