"""From a provider's webhook to the provider's API, through the product's own processes.

Every kind of request comes in as the providers send it (`tests/channels/recorded`), the model is the stand-in and
repeats what it was asked, and what the providers took is read from their books.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.stack.standin import Standin
from shared.config import Settings
from tests.channels.providers import PROVIDERS
from tests.channels.recorded import SLOW, Post, heard, posts
from tests.conftest import _eventually
from tests.delivery.conftest import TENANT
from tests.replies.conftest import Connect, Replies
from tests.replies.fleet import fleet_of

HASTEN_EVERY_S, GIVE_UP_S = 0.3, 100
pytestmark = pytest.mark.timeout(700)  # processes start and are killed on a machine that may be busy


@pytest.fixture
def whole(settings: Settings, standin: Standin) -> Settings:
    """With a model, and short leases."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    more = {
        "openai_api_key": "sk-test",
        "openai_base_url": f"{standin.url}/v1",
        "cache_ttl_s": 0,
        "drain_s": 1.0,
        "retry_base_s": 0.05,
        "delivery_timeout_s": 2.0,
    }
    return Settings.read({**given, **more})


async def model(standin: Standin, **rule: Any) -> None:
    async with httpx.AsyncClient(base_url=standin.url) as client:
        (await client.post("/_behaviour", json=[{"reply": "{last}", **rule}])).raise_for_status()


async def without_limits(replies: Replies) -> None:
    await replies.books.execute("UPDATE tenants SET settings = $1 WHERE tenant_id = $2", '{"unlimited": true}', TENANT)


async def delivers(line: httpx.AsyncClient, replies: Replies, post: Post) -> None:
    """One request as the provider makes it."""
    path = f"/v1/channels/{replies.channel_id}/webhook"
    request = PROVIDERS[replies.kind].signed(post.content, path)
    answer = await line.post(path + request.query, content=request.body, headers=request.headers)
    assert answer.status_code == 200, answer.text


def in_turn(lines: list[Replies]) -> Iterator[tuple[Replies, Post]]:
    """All requests of all providers: the first of each, the second of each …"""
    for round_ in itertools.zip_longest(*(posts(line.kind) for line in lines)):
        yield from ((line, post) for line, post in zip(lines, round_, strict=True) if post is not None)


async def conversations(replies: Replies, kind: str) -> dict[str, list[str]]:
    """What each user was sent, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in await replies.taken():
        if one["provider"] == kind:
            found[one["to"]].append(one["text"])
    return dict(found)


async def tells_statuses(whatsapp: Replies, url: str, *states: str) -> None:
    """Meta tells them from now on."""
    hook = {"url": f"{url}/v1/channels/{whatsapp.channel_id}/webhook", "secret": "meta-secret", "statuses": states}
    number = PROVIDERS["whatsapp"].settings["phone_number_id"]
    (await whatsapp.provider.post("/messengers/_hooks", json={number: hook})).raise_for_status()


async def test_whatever_providers_send_is_answered_there_in_order(
    whole: Settings, standin: Standin, connect: Connect, tmp_path: Path
) -> None:
    lines = {kind: await connect(kind) for kind in sorted(PROVIDERS)}
    whatsapp = lines["whatsapp"]
    wanted = {kind: heard(kind) for kind in lines}
    await without_limits(whatsapp)
    await model(standin, held=True)
    patient = whole.model_copy(update={"delivery_timeout_s": 30.0})  # a busy machine is no cut connection
    async with fleet_of(patient, tmp_path, workers=1, couriers=1) as fleet:
        await tells_statuses(whatsapp, fleet.url, "delivered", "read")
        for line, post in in_turn([*lines.values()]):
            await delivers(fleet.caller, line, post)
        for line in lines.values():  # as they do when they are not sure that we have it
            await delivers(fleet.caller, line, posts(line.kind)[0])
        await _eventually(lambda: _are_shown_at_work(whatsapp, {"whatsapp", "telegram"}), 90)
        await model(standin)

        with contextlib.suppress(AssertionError):  # what is there says more
            await _eventually(lambda: _is_said(whatsapp, wanted), 90)
        assert {kind: await conversations(whatsapp, kind) for kind in lines} == wanted

        async def are_read() -> bool:
            details = [await whatsapp.shown(row["delivery_id"]) for row in await deliveries(whatsapp, "whatsapp")]
            return {part["status"] for one in details for part in one["parts"]} == {"read"}

        await _eventually(are_read, 60)
        assert set(await whatsapp.states()) == {"delivered"}
        assert {kind: await conversations(whatsapp, kind) for kind in lines} == wanted, "and nothing more"
    assert await _are_shown_at_work(whatsapp, {"whatsapp", "telegram"}), "the others have no such sign"


async def _are_shown_at_work(replies: Replies, providers: set[str]) -> bool:
    return {one["provider"] for one in await replies.served() if one["kind"] == "working"} == providers


async def _is_said(replies: Replies, wanted: dict[str, dict[str, list[str]]]) -> bool:
    return {kind: await conversations(replies, kind) for kind in wanted} == wanted


async def deliveries(replies: Replies, kind: str) -> list[Any]:
    query = "SELECT delivery_id FROM deliveries WHERE url LIKE $1"
    return list(await replies.books.fetch(query, f"channel://ch-{kind}%"))


async def test_killed_processes_lose_nothing_and_every_duplicate_is_listed(
    whole: Settings, standin: Standin, connect: Connect, tmp_path: Path
) -> None:
    """What is in doubt at WhatsApp is settled by its statuses, if they are written down in time."""
    lines = [await connect(kind) for kind in sorted(PROVIDERS)]
    wanted = {kind: heard(kind) for kind in PROVIDERS}
    await without_limits(lines[0])
    await model(standin, latency_ms=100)
    await lines[0].provider.post(
        "/messengers/_faults",  # the answer is withheld: whoever waits for it is killed
        json=[{"provider": kind, "kind": "hang", "match": SLOW} for kind in PROVIDERS],
    )
    async with fleet_of(whole, tmp_path, workers=2, couriers=2) as fleet:
        await tells_statuses(lines[-1], fleet.url, "sent", "delivered")

        async def talk() -> None:
            for line, post in in_turn(lines):
                await delivers(fleet.caller, line, post)

        async def strike() -> None:
            for round_ in range(2):
                await _eventually(lambda: _some_are_sending(lines[0]), 60)
                # one worker lives on: it writes down the statuses that are waited for
                for name, command in ((f"delivery-{round_}", "delivery"), ("worker-0", "worker")):
                    await fleet.kill(name)
                    await fleet.start(name, command)

        await asyncio.gather(talk(), strike())
        await _all_end(lines[0], sum(len(texts) for peers in wanted.values() for texts in peers.values()))
    for kind, peers in wanted.items():
        found = await conversations(lines[0], kind)
        once = {peer: [*dict.fromkeys(texts)] for peer, texts in found.items()}
        assert once == peers, "each in its turn, none lost"
    await _check_duplicates(lines)


async def _some_are_sending(replies: Replies) -> bool:
    return bool(await replies.books.fetchval("SELECT count(*) FROM delivery_parts WHERE state = 'sending'"))


HASTEN = (
    # a request lasts 2 s at most, a lease 32 s: these began 6 s ago, and nobody is at them any more
    """UPDATE deliveries AS d SET lease_until = now() - interval '1 s'
    WHERE state = 'sending' AND lease_until < now() + interval '26 s' AND (url NOT LIKE '%whatsapp%' OR EXISTS (
        SELECT FROM delivery_parts AS p JOIN channel_statuses AS s
            ON s.reference = part_reference(p.delivery_id, p.part, p.tried) WHERE p.delivery_id = d.delivery_id))""",
    """UPDATE deliveries AS d SET due_at = now()
    WHERE state = 'unknown' AND due_at > now() AND (url NOT LIKE '%whatsapp%' OR EXISTS (
        SELECT FROM delivery_parts AS p JOIN channel_statuses AS s
            ON s.reference = part_reference(p.delivery_id, p.part, p.tried) WHERE p.delivery_id = d.delivery_id))""",
    "UPDATE deliveries SET due_at = now() WHERE state = 'retrying' AND due_at > now()",
)
"""What waits for half a minute because it may have arrived waits for less, once whatever it waits for is there."""


async def _all_end(replies: Replies, wanted: int) -> None:
    """All are delivered. It is given up when nothing has happened for a while, however long the whole takes."""
    moved_s = hastened_s = time.monotonic()
    ended = 0

    async def are() -> bool:
        nonlocal hastened_s, moved_s, ended
        if time.monotonic() - hastened_s > HASTEN_EVERY_S:
            for hasten in HASTEN:
                await replies.books.execute(hasten)
            hastened_s = time.monotonic()
        before, ended = ended, (await replies.states()).count("delivered")
        if ended > before:
            moved_s = time.monotonic()
        return ended == wanted or time.monotonic() - moved_s > GIVE_UP_S

    await _eventually(are, 4 * GIVE_UP_S)
    assert (Counter(await replies.states()), await _left(replies)) == ({"delivered": wanted}, [])


async def _left(replies: Replies) -> list[str]:
    """What did not end, and why."""
    rows = await replies.books.fetch(
        """SELECT url, state, attempts, failures, last_error, due_at - now() AS due, lease_until - now() AS lease,
            (SELECT string_agg(r.receiver || ' ' || (r.open_until - now()), '; ') FROM receivers AS r) AS receivers
        FROM deliveries WHERE state <> 'delivered'"""
    )
    return [" ".join(map(str, row.values())) for row in rows]


async def _check_duplicates(lines: list[Replies]) -> None:
    """A message that was taken twice is one that was in doubt, and is listed so."""
    taken = Counter((one["provider"], one["to"], one["text"]) for one in await lines[0].taken())
    resent: Counter[tuple[str, str]] = Counter()  # no two of a provider's users say the same
    for kind in PROVIDERS:
        for row in await deliveries(lines[0], kind):
            shown = await lines[0].shown(row["delivery_id"])
            again = sum(part["resent"] for part in shown["parts"])
            if again:
                outcomes = [(entry["outcome"], entry["code"]) for entry in shown["log"]]
                assert any(outcome == "unknown" for outcome, _ in outcomes), json.dumps(shown)
                assert ("delivered", "resent") in outcomes, json.dumps(shown)
                resent[kind, shown["body"]["reply"]] += again
    for (kind, _, text), times in taken.items():
        assert times - 1 <= resent[kind, text], f"{kind} took {text!r} {times} times"
