"""Messages that may have arrived: a process killed, a connection cut, at every point of a reply of several messages."""

import asyncio
import signal
import sys

import pytest

from shared.config import Settings
from tests.conftest import START_S, Eventually, _eventually
from tests.delivery.conftest import Running
from tests.replies.conftest import Connect, Replies
from tests.stack.dev_process import REPOSITORY
from tests.turn.deployment import environment_of

THREE = "\n\n".join(letter * 4_000 for letter in "abc")


async def killed(settings: Settings, point: str, nth: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.replies.doomed_courier", point, str(nth)),
        cwd=REPOSITORY,
        env=environment_of(settings),
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await asyncio.wait_for(process.wait(), START_S) == -signal.SIGKILL


async def said(replies: Replies) -> str:
    """The first letters of what the provider took."""
    return "".join(text[0] for text in await replies.texts())


@pytest.mark.parametrize(
    ("point", "nth", "taken", "log"),
    [
        ("asked", 3, "abc", [("unknown", "vanished"), ("delivered", "resent")]),
        ("taken", 2, "abbc", [("unknown", "vanished"), ("delivered", "resent")]),
        ("taken", 3, "abcc", [("unknown", "vanished"), ("delivered", "resent")]),
        ("noted", 1, "abc", [("failed", "vanished"), ("delivered", None)]),
    ],
)
async def test_a_killed_process_repeats_at_most_the_message_that_was_under_way(
    settings: Settings,
    whatsapp: Replies,
    running: Running,
    point: str,
    nth: int,
    taken: str,
    log: list[tuple[str, str | None]],
) -> None:
    delivery = await whatsapp.owe(THREE)
    await killed(settings, point, nth)
    assert await whatsapp.states() == ["sending"]
    await whatsapp.pass_time(60)
    async with running():
        await whatsapp.become("delivered")
    assert await said(whatsapp) == taken
    assert await whatsapp.attempts() == log
    resent = [part["resent"] for part in (await whatsapp.shown(delivery))["parts"]]
    in_doubt = nth if point != "noted" else 0
    assert resent == [int(part == in_doubt) for part in (1, 2, 3)]


async def test_a_status_that_echoes_our_reference_keeps_it_from_being_sent_twice(
    settings: Settings, whatsapp: Replies, running: Running
) -> None:
    delivery = await whatsapp.owe(THREE)
    await killed(settings, "taken", 2)
    _, second = await whatsapp.taken()
    await whatsapp.told(second["id"], "sent", reference=second["reference"])
    await whatsapp.pass_time(60)
    async with running():
        await whatsapp.become("delivered")
    assert await said(whatsapp) == "abc"
    shown = await whatsapp.shown(delivery)
    assert [part["message_id"] for part in shown["parts"]] == [one["id"] for one in await whatsapp.taken()]
    assert [part["status"] for part in shown["parts"]] == [None, "sent", None]
    assert await whatsapp.attempts() == [("unknown", "vanished"), ("delivered", None)]


async def test_somebody_elses_reference_settles_nothing(
    settings: Settings, whatsapp: Replies, running: Running
) -> None:
    """Of another message of ours, or of another program that sends from the same number."""
    delivery = await whatsapp.owe(THREE)
    await killed(settings, "taken", 2)
    for reference in (f"{delivery}:2:9", f"{delivery}:3:1", "x", "1:2:3", delivery):
        await whatsapp.told(f"wamid.{reference}", "sent", reference=reference)
    await whatsapp.pass_time(60)
    async with running():
        await whatsapp.become("delivered")
    assert await said(whatsapp) == "abbc"


async def test_a_cut_connection_waits_for_a_status_and_then_sends_again(whatsapp: Replies, running: Running) -> None:
    await whatsapp.misbehave({"kind": "cut", "match": "first"})
    delivery = await whatsapp.owe("first")
    await whatsapp.owe("second")
    async with running():
        shown = await whatsapp.fault(delivery, "cut")
        assert shown["state"] == "unknown"
        assert 25e6 < shown["due_us"] - shown["parts"][0]["ended_us"] < 35e6
        await whatsapp.become("unknown", "pending")
        await whatsapp.pass_time(31)
        await whatsapp.become("delivered", "delivered")
    assert await whatsapp.texts() == ["first", "first", "second"]
    assert await whatsapp.attempts() == [("unknown", "cut"), ("delivered", "resent"), ("delivered", None)]


async def test_a_cut_connection_whose_message_a_status_tells_of_is_not_sent_again(
    whatsapp: Replies, running: Running
) -> None:
    await whatsapp.misbehave({"kind": "cut"})
    delivery = await whatsapp.owe("first")
    async with running():
        await whatsapp.fault(delivery, "cut")
        [taken] = await whatsapp.taken()
        await whatsapp.told(taken["id"], "delivered", reference=taken["reference"])
        await whatsapp.pass_time(31)
        await whatsapp.become("delivered")
    assert await whatsapp.texts() == ["first"]
    [part] = (await whatsapp.shown(delivery))["parts"]
    assert (part["message_id"], part["status"], part["resent"]) == (taken["id"], "delivered", 0)


async def test_one_that_was_sent_again_is_listed_so_though_an_echo_settled_it_in_the_end(
    whatsapp: Replies, running: Running
) -> None:
    await whatsapp.misbehave({"kind": "cut", "times": 2})
    delivery = await whatsapp.owe("first")
    async with running():
        await whatsapp.fault(delivery, "cut")
        await whatsapp.pass_time(31)
        await whatsapp.become("unknown")
        await _eventually(lambda: _took(whatsapp, 2))
        await whatsapp.fault(delivery, "cut")
        _, again = await whatsapp.taken()
        await whatsapp.told(again["id"], "delivered", reference=again["reference"])
        await whatsapp.pass_time(31)
        await whatsapp.become("delivered")
    assert await whatsapp.texts() == ["first", "first"]
    assert await whatsapp.attempts() == [("unknown", "cut"), ("unknown", "cut"), ("delivered", "resent")]


async def _took(replies: Replies, count: int) -> bool:
    return len(await replies.taken()) == count


@pytest.mark.parametrize("kind", ["telegram", "slack"])
async def test_without_echoes_it_is_sent_again_soon(connect: Connect, running: Running, kind: str) -> None:
    replies = await connect(kind)
    await replies.misbehave({"kind": "cut", "taken": False})
    delivery = await replies.owe("first")
    async with running():
        await replies.fault(delivery, "cut")
        await replies.pass_time(6)
        await replies.become("delivered")
    assert await replies.texts() == ["first"]
    assert await replies.attempts() == [("unknown", "cut"), ("delivered", "resent")]


async def test_a_gateways_answer_leaves_it_open_whether_the_provider_took_it(
    whatsapp: Replies, running: Running
) -> None:
    await whatsapp.misbehave({"kind": "refuse", "status": 504, "code": "no number: not Meta's answer"})
    delivery = await whatsapp.owe("first")
    async with running():
        assert (await whatsapp.fault(delivery, "504"))["state"] == "unknown"
    assert await whatsapp.attempts() == [("unknown", "504")]


async def test_a_channel_may_hold_what_is_in_doubt_for_a_person(connect: Connect, running: Running) -> None:
    replies = await connect("whatsapp", in_doubt="hold")
    await replies.misbehave({"kind": "cut", "match": "first"})
    delivery = await replies.owe("first")
    await replies.owe("second")
    async with running():
        await replies.fault(delivery, "cut")
        await replies.pass_time(31)
        await replies.become("failed", "delivered")
        assert (await replies.shown(delivery))["error"]["code"] == "held"
        assert await replies.texts() == ["first", "second"]
        assert await replies.books.fetchval("SELECT replay_delivery(NULL, $1)", delivery) == "queued"
        await replies.become("delivered", "delivered")
    assert await replies.texts() == ["first", "second", "first"]


async def test_a_held_one_whose_status_comes_late_is_delivered_after_all(connect: Connect, running: Running) -> None:
    replies = await connect("whatsapp", in_doubt="hold")
    await replies.misbehave({"kind": "cut"})
    delivery = await replies.owe("first")
    async with running():
        await replies.fault(delivery, "cut")
        await replies.pass_time(31)
        await replies.become("failed")
    [taken] = await replies.taken()
    await replies.told(taken["id"], "delivered", reference=taken["reference"])
    shown = await replies.shown(delivery)
    assert (shown["state"], shown["error"], shown["parts"][0]["message_id"]) == ("delivered", None, taken["id"])


async def test_a_frozen_process_that_wakes_does_not_repeat_what_another_one_sent(
    whatsapp: Replies, running: Running, eventually: Eventually
) -> None:
    """Its lease lapsed while it waited for an answer; another one took over, and its late note changes nothing."""
    await whatsapp.misbehave({"kind": "hang", "taken": False})
    delivery = await whatsapp.owe("first")

    async def is_sending() -> bool:
        return [part["state"] for part in (await whatsapp.shown(delivery))["parts"]] == ["sending"]

    async with running(delivery_timeout_s=3.0):
        await eventually(is_sending)
        await whatsapp.pass_time(60)
        await whatsapp.become("delivered")
    shown = await whatsapp.shown(delivery)
    assert (shown["state"], shown["attempts"], len(await whatsapp.texts())) == ("delivered", 2, 1)
    assert [entry["outcome"] for entry in shown["log"]] == ["unknown", "delivered"]
