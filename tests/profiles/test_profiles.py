"""`/v1/users/…` and `switchboard users …`: what is known of a user, seen, put right and erased, by whom it may be."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import asyncpg
import httpx
import pytest

from shared.config import Settings
from sql import queries
from tests.conftest import Database
from tests.stack.dev_process import REPOSITORY
from tests.turn.deployment import environment_of

Doors = dict[str, httpx.AsyncClient]
PROFILE, FACTS = "/v1/users/u-1/profile", "/v1/users/u-1/facts"


async def test_a_profile_is_written_changed_and_erased(doors: Doors, database: Database) -> None:
    acme = doors["acme"]
    assert (await acme.get(PROFILE)).status_code == 404
    made = await acme.patch(PROFILE, json={"name": "Ada", "prefers_concise": True})
    assert made.status_code == 200, made.text
    entry = made.json()["entries"]["name"]
    assert entry["value"] == "Ada"
    assert entry["by"].startswith("key:")
    changed = (await acme.patch(PROFILE, json={"language": "pt-BR", "prefers_concise": None})).json()
    assert {name: each["value"] for name, each in changed["entries"].items()} == {"name": "Ada", "language": "pt-BR"}
    await find(database, {"profile": {"name": found("Bob"), "prefers_concise": found(False)}, "facts": []})
    entries = (await acme.get(PROFILE)).json()["entries"]
    assert entries["name"]["value"] == "Ada", "what a person wrote is not replaced by what was found"
    assert (entries["prefers_concise"]["value"], entries["prefers_concise"]["by"]) == (False, "user")
    assert (await acme.delete(PROFILE)).json()["entries"] == {}
    assert (await acme.delete(PROFILE)).status_code == 200


async def test_a_fact_is_written_replaced_and_erased_with_its_past(doors: Doors, database: Database) -> None:
    acme, said = doors["acme"], "0193a1b2-0000-7000-8000-000000000001"
    fact = {"topic": "home_city", "text": "Lives in Lisbon.", "sources": [said], "at_us": 1_795_246_200_000_000}
    await find(database, {"profile": {}, "facts": [fact]})
    (known,) = (await acme.get(FACTS)).json()["data"]
    assert (known["text"], known["sources"], known["told_by"]) == ("Lives in Lisbon.", [said], "user")
    assert (known["conversation_id"], known["valid_to"]) == ("c-1", None)
    written = await acme.put(f"{FACTS}/home_city", json={"text": "Lives in Porto."})
    assert written.status_code == 200, written.text
    assert [each["text"] for each in (await acme.get(FACTS)).json()["data"]] == ["Lives in Porto."]
    now, before = (await acme.get(FACTS, params={"past": True})).json()["data"]
    assert (before["superseded_by"], before["valid_to"]) == (now["id"], now["valid_from"])
    again = await acme.put(f"{FACTS}/home_city", json={"text": "Lives in Porto."})
    assert again.json()["id"] == now["id"], "the same again is nothing new"
    await acme.put(f"{FACTS}/pet", json={"text": "Has a cat."})
    assert (await acme.delete(f"{FACTS}/home_city")).json()["erased"] == 2
    assert (await acme.delete(f"{FACTS}/home_city")).status_code == 404
    assert (await acme.delete(FACTS)).json()["erased"] == 1
    assert (await acme.get(FACTS, params={"past": True})).json()["data"] == []


def found(value: str | bool) -> dict[str, Any]:
    return {"value": value, "sources": []}


async def find(database: Database, what: dict[str, Any]) -> None:
    """As a task does it, for user u-1 of acme."""
    ops = await asyncpg.connect(database.ops)
    await ops.execute(
        "INSERT INTO conversations (tenant_id, conversation_id, user_id, created_at, updated_at) "
        "VALUES ('acme', 'c-1', 'u-1', now(), now())"
    )
    await ops.execute(
        "INSERT INTO memory_tasks (tenant_id, conversation_id, kind, user_id, claim) "
        "VALUES ('acme', 'c-1', 'facts', 'u-1', 7)"
    )
    assert not await ops.fetchval(queries["commit_facts"], "acme", "c-1", 6, 0, 2, json.dumps(what), "[]"), (
        "not its claim"
    )
    assert await ops.fetchval(queries["commit_facts"], "acme", "c-1", 7, 0, 2, json.dumps(what), "[]")
    assert not await ops.fetchval(queries["commit_facts"], "acme", "c-1", 7, 0, 2, json.dumps(what), "[]"), (
        "done already"
    )
    await ops.close()


async def test_two_summaries_of_the_same_messages_are_one(database: Database) -> None:
    ops = await asyncpg.connect(database.ops)
    await ops.execute(
        "INSERT INTO conversations (tenant_id, conversation_id, created_at, updated_at) "
        "VALUES ('acme', 'c-1', now(), now())"
    )
    await ops.execute(
        "INSERT INTO memory_tasks (tenant_id, conversation_id, kind, claim) VALUES ('acme', 'c-1', 'summary', 7)"
    )
    written = [
        await ops.fetchval(queries["commit_summary"], "acme", "c-1", claim, start, upto, text, 1, "m", "[]")
        for claim, start, upto, text in [(6, 0, 5, "late"), (7, 0, 5, "one"), (7, 0, 6, "again"), (7, 5, 9, "two")]
    ]
    assert written == [False, True, False, True]
    assert await ops.fetchval("SELECT body FROM conversation_summaries") == "two"
    await ops.close()


async def test_tenants_reach_their_own_users_and_operators_name_the_tenant(doors: Doors) -> None:
    await doors["acme"].patch(PROFILE, json={"name": "Ada"})
    assert (await doors["other"].get(PROFILE)).status_code == 404
    assert (await doors["other"].get(PROFILE, params={"tenant": "acme"})).status_code == 403
    assert (await doors["ops"].get(PROFILE)).status_code == 422
    shown = await doors["ops"].get(PROFILE, params={"tenant": "acme"})
    assert shown.json()["entries"]["name"]["value"] == "Ada"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (PROFILE, {"name": ""}, 422),
        (PROFILE, {"name": "x" * 101}, 422),
        (PROFILE, {"language": "German"}, 422),
        (PROFILE, {"prefers_concise": "yes"}, 422),
        (PROFILE, {"nickname": "A"}, 422),
        (PROFILE, {"name": "a\0b"}, 422),
        (f"/v1/users/{'x' * 129}/profile", {"name": "A"}, 404),
        (f"{FACTS}/pet", {"text": ""}, 422),
        (f"{FACTS}/pet", {"text": "\ud83d"}, 400),
        (f"{FACTS}/Pet!", {"text": "Has a cat."}, 404),
    ],
    ids=str,
)
async def test_bad_input_is_refused_and_changes_nothing(
    doors: Doors, path: str, body: dict[str, Any], status: int
) -> None:
    acme, content = doors["acme"], json.dumps(body)
    method = "PUT" if "/facts" in path else "PATCH"
    assert (await acme.request(method, path, content=content)).status_code == status
    assert (await acme.get(PROFILE)).status_code == 404
    assert (await acme.get(FACTS)).json()["data"] == []


async def test_the_command_line_does_the_same(settings: Settings, doors: Doors) -> None:
    steps = [
        ("profile", "set", "acme", "u-1", "name=Ada", "prefers_concise=true"),
        ("facts", "set", "acme", "u-1", "pet", "Has a cat."),
        ("facts", "list", "acme", "u-1", "--json"),
    ]
    for step in steps:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "ops", "users", *step],
            cwd=REPOSITORY,
            env=environment_of(settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert [fact["text"] for fact in json.loads(done.stdout)] == ["Has a cat."]
    entries = (await doors["acme"].get(PROFILE)).json()["entries"]
    assert entries["name"]["value"] == "Ada"
    assert entries["name"]["by"].startswith("cli:")
