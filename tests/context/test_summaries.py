"""Summaries, from what was said to what the model is shown, through the real worker and servers."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.conftest import Eventually
from tests.context.conftest import NANO, SHOES, Remembering

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_long_conversation_is_summed_up_but_for_its_newest_messages(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave(SHOES, {"reply": "{previous}."})
    await deployment.long_talk()
    async with deployment.worker(), deployment.memory():
        made = await eventually(deployment.summary)
        assert (made["body"], made["upto_seq"], made["user_id"]) == ("They talked about shoes.", 12, "u1")
        await eventually(lambda: deployment.idle("summary"))
        (seen,) = await deployment.talk("and now?")
    assert seen.startswith("<remembered>")
    assert "<summary>\nThey talked about shoes.\n</summary>" in seen
    (call,) = await deployment.calls("summary")
    assert (call["status"], call["agent"], call["conversation_id"], call["user_id"]) == ("ok", "support", "c1", "u1")
    assert call["cost_nano_usd"] > 0
    served = [request for request in (await deployment.served())["requests"] if request["model"] == NANO]
    assert len(served) == 1


async def test_twenty_messages_need_no_summary(deployment: Remembering) -> None:
    await deployment.long_talk(turns=10)
    assert (await deployment.task("summary"))["due_at"] is None
    await deployment.memory_settings(summary_after=19)
    async with deployment.worker():
        await deployment.talk("one more", conversation="c2")
        await deployment.talk("and one here")
    await deployment.take_in()
    assert (await deployment.task("summary"))["due_at"] is not None
    assert (await deployment.task("summary", "c2"))["due_at"] is None


async def test_the_next_summary_is_made_of_the_last_one_and_what_came_since(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave(SHOES)
    await deployment.long_talk()
    async with deployment.worker(), deployment.memory():
        await eventually(deployment.summary)
    await deployment.behave({"model": NANO, "reply": "{last}"}, {"reply": "yes"})
    await deployment.long_talk()
    async with deployment.worker(), deployment.memory():

        async def later() -> dict[str, Any] | None:
            found = await deployment.summary()
            return found if found and found["upto_seq"] == 34 else None

        made = await eventually(later)
    asked = msgspec.json.decode(made["body"])
    assert asked["summary_so_far"] == "They talked about shoes."
    assert len(asked["messages"]) == 22
    assert asked["messages"][0] == {"by": "user", "text": "message 6"}


async def test_too_much_for_one_call_is_summed_up_in_several(deployment: Remembering, eventually: Eventually) -> None:
    await deployment.behave(SHOES, {"reply": "yes"})
    async with deployment.worker():
        await deployment.talk(*(f"message {n} " + "lorem ipsum " * 400 for n in range(18)))
    await deployment.take_in()
    async with deployment.worker(), deployment.memory():

        async def all_of_it() -> dict[str, Any] | None:
            found = await deployment.summary()
            return found if found and await deployment.idle("summary") else None

        made = await eventually(all_of_it)
    assert 36 - 20 <= made["upto_seq"] <= 26
    made_calls = await deployment.calls("summary")
    assert len(made_calls) > 1
    assert all(call["input_tokens"] < 4_000 for call in made_calls)


async def test_a_failure_keeps_the_old_summary_and_is_tried_again_later(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave(SHOES)
    await deployment.long_talk()
    async with deployment.worker(), deployment.memory():
        await eventually(deployment.summary)
        await eventually(lambda: deployment.idle("summary"))
    await deployment.behave({"model": NANO, "faults": [{"status": 500}], "reply": "Newer."}, {})
    await deployment.long_talk()
    async with deployment.worker(), deployment.memory():

        async def failed() -> dict[str, Any] | None:
            task = await deployment.task("summary")
            return task if task["error"] else None

        task = await eventually(failed)
        assert msgspec.json.decode(task["error"])["code"] == "upstream_unavailable"
        now = await deployment.books.fetchval("SELECT now()")
        assert timedelta(seconds=15) < task["due_at"] - now < timedelta(seconds=60)
        kept = await deployment.summary()
        assert kept is not None
        assert kept["body"] == "They talked about shoes."
        await deployment.hurry()
        await eventually(lambda: deployment.idle("summary"))
    kept = await deployment.summary()
    assert kept is not None
    assert kept["body"] == "Newer."
    assert (await deployment.task("summary"))["error"] is None
    assert [call["status"] for call in await deployment.calls("summary")] == ["ok", "error", "ok"]


async def test_a_summary_that_comes_too_late_is_paid_for_and_dropped(
    deployment: Remembering, eventually: Eventually
) -> None:
    """Another worker claims the task while the first one's model is still writing."""
    await deployment.behave({**SHOES, "gather": 2}, {})
    await deployment.long_talk()
    body = {"model": NANO, "messages": [{"role": "user", "content": "the call that it waits for"}]}

    async def asked() -> bool:
        return bool((await deployment.served())["concurrency"])

    async with deployment.memory():
        await eventually(asked, timeout_s=30)
        await deployment.books.execute("UPDATE memory_tasks SET claim = claim + 1, due_at = NULL")
        said = await deployment.standin.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer x"})
        said.raise_for_status()
        await eventually(lambda: deployment.calls("summary"), timeout_s=30)
    assert await deployment.summary() is None
    assert [call["status"] for call in await deployment.calls("summary")] == ["ok"]
