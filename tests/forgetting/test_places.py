"""Every place that may name somebody, filled by hand for two people: of the one who is erased nothing is left, of the
other one everything. So that no step of an erasure can be taken out unnoticed."""

import msgspec

from ops.users.erasing import Eraser
from shared import keys
from tests.forgetting.searching import Everywhere
from tests.forgetting.test_erasing import a_user, erase
from tests.turn.deployment import TENANT, Deployment
from workers.maintenance.ends import UNREADABLE as UNREADABLE_ENDS
from workers.maintenance.inbox import UNREADABLE as UNREADABLE_INBOX
from workers.replies.working import Sign


class Person:
    """Somebody who came through a messenger."""

    def __init__(self, mark: str, tenant: str = TENANT) -> None:
        self.tenant = tenant
        self.address = f"1650555{mark}"
        self.user = f"whatsapp:{self.address}"
        self.talk, self.other_talk = f"talk-of-{mark}", f"other-talk-of-{mark}"
        self.mark, self.job_id = mark, ""

    async def everywhere(self, places: Everywhere) -> set[str]:
        """Places that name them (all their names have the mark), but for the ledger: it keeps what a job cost."""
        found = await places.find(self.mark, self.job_id)
        return {place for place in found if not (place.startswith("llm_calls") and ".job_id" in place)}


async def leave_marks(deployment: Deployment, person: Person) -> None:
    record = await deployment.ended(
        await deployment.say(f"I am {person.mark}", user=person.user, conversation=person.talk, tenant=person.tenant)
    )
    person.job_id = record.id
    await in_books(deployment, person)
    await in_redis(deployment, person)


async def wait_in_line(deployment: Deployment, person: Person) -> None:
    """One message that no worker has seen; and of the one before Redis knows nothing any more but that it was asked."""
    for name in await deployment.commands.redis.keys(f"*{person.job_id}*"):
        await deployment.commands.run("DEL", name)
    named = {"user": person.user, "conversation": person.talk, "tenant": person.tenant}
    waits = await deployment.say(f"{person.mark} again", queue="nobody's", **named)
    for job_id in (person.job_id, waits):
        await deployment.commands.run("SET", f"sb:idem:{person.tenant}:{job_id[::-1]}", f"{job_id} {person.mark}")


async def in_books(deployment: Deployment, person: Person) -> None:
    for statement, named in (
        (
            "INSERT INTO channel_paces (tenant_id, channel_id, peer, next_at) VALUES ($1, 'ch', $2, now())",
            person.address,
        ),
        ("INSERT INTO forgotten_responses (tenant_id, job_id) VALUES ($1, $2)", person.job_id),
        ("INSERT INTO job_claims (tenant_id, job_id, run, claim) VALUES ($1, $2, 2, 5)", person.job_id),
        (
            "INSERT INTO user_facts (tenant_id, user_id, topic, body, told_by, valid_from) "
            "VALUES ($1, $2, 't', 'b', 'user', now())",
            person.user,
        ),
        (
            "INSERT INTO embedding_models (name, dimensions, state, filled_tenant, filled_user, filled_item) "
            "VALUES (reverse($2) || $1, 8, 'retired', $1, $2, 5)",
            person.user,
        ),
    ):
        await deployment.books.execute(statement, person.tenant, named)


async def in_redis(deployment: Deployment, person: Person) -> None:
    run, mark, tenant = deployment.commands.run, person.mark, person.tenant
    terms = msgspec.json.encode({"terms": {"user_tiers": {person.user: "pro"}}})
    for name in (f"sb:apikey:{mark[::-1]}", f"sb:channel:{mark[::-1]}"):
        await run("SET", name, terms)
    await run("SET", keys.owner(tenant, person.other_talk), person.user)
    for talk in (person.talk, person.other_talk):
        await run("SET", keys.notice(tenant, talk), "told")
    for rate in (("user",), ("tier",), ("endpoint", "webhook"), ("endpoint", "flows")):
        await run("SET", keys.rate(*rate, tenant, person.user), "1")
    sign = Sign(tenant=tenant, channel="ch", job="j", at_us=1, details={"to": person.address})
    await run("RPUSH", keys.WORKING, msgspec.json.encode(sign))
    await run(
        "XADD",
        UNREADABLE_ENDS,
        "*",
        "id",
        "j",
        "created_us",
        "1",
        "payload",
        b'{"user_id": "%b' % person.user.encode() + b'"',
    )
    rows = msgspec.json.encode([{"peer": person.address}])
    await run("XADD", UNREADABLE_INBOX, "*", "tenant", tenant, "rows", rows)


async def test_of_whom_is_erased_no_place_is_left_and_of_everybody_else_all_are(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    gone, stays = Person("9917734"), Person("8826645")
    async with deployment.worker():
        for person in (gone, stays):
            await leave_marks(deployment, person)
    for person in (gone, stays):
        await wait_in_line(deployment, person)
    before = await stays.everywhere(everywhere)
    assert len(before) > 30, "they are in all of them"
    await erase(eraser, a_user(gone.user))
    assert await gone.everywhere(everywhere) == set()
    assert await stays.everywhere(everywhere) == before


async def test_a_namesake_at_another_tenant_is_left_alone(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    """But for copies of what Postgres has, and for ends that nobody can read: those do not say whose they are."""
    stays, gone = Person("9917734", "other"), Person("9917734")
    await deployment.books.execute("INSERT INTO tenants (tenant_id, name) VALUES ('other', '')")
    for person in (stays, gone):
        async with deployment.worker():
            await leave_marks(deployment, person)
        await wait_in_line(deployment, person)
        if person is stays:
            before = await everywhere.find(stays.mark, stays.job_id)
    await erase(eraser, a_user(gone.user))
    left_out = (f"sb:apikey:{stays.mark[::-1]}", f"sb:channel:{stays.mark[::-1]}", UNREADABLE_ENDS)
    kept = sorted(place for place in before if not place.startswith(left_out))
    assert sorted(await everywhere.find(stays.mark, stays.job_id)) == kept
