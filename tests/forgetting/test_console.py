"""Users over HTTP and the command line: who there is, everything of one, and erasing one."""

import json
import subprocess
import sys
from urllib.parse import quote

import pytest

from ops.console.routes import users
from shared.config import Settings
from tests.conftest import Eventually
from tests.dead.conftest import Clients
from tests.forgetting.searching import Everywhere
from tests.forgetting.test_erasing import CANARY, USER, state_of
from tests.turn.deployment import TENANT, Deployment, environment_of


async def said(deployment: Deployment, text: str = CANARY, user: str = USER, **fields: str) -> str:
    async with deployment.worker():
        job_id = await deployment.say(text, user=user, **fields)
        await deployment.ended(job_id)
    return job_id


async def test_users_are_listed_shown_and_exported(deployment: Deployment, console: Clients) -> None:
    job_id = await said(deployment, callback_url="https://example.org/hook")
    await said(deployment, "hello", user="u2", conversation="c2")
    async with console("sk-admin") as admin:
        page = (await admin.get("/v1/users?limit=1")).json()
        assert [one["id"] for one in page["data"]] == [USER]
        rest = (await admin.get("/v1/users", params={"cursor": page["next_cursor"]})).json()
        assert [one["id"] for one in rest["data"]] == ["u2"]
        assert rest["next_cursor"] is None
        shown = (await admin.get(f"/v1/users/{USER}")).json()
        assert (shown["conversations"], shown["messages"]) == (1, 2)
        exported = await admin.get(f"/v1/users/{USER}/export")
        lines = [json.loads(line) for line in exported.text.splitlines()]
    assert {line["table"] for line in lines} == {
        "users",
        "conversations",
        "messages",
        "jobs",
        "llm_calls",
        "deliveries",
    }
    assert {line["row"]["tenant_id"] for line in lines} == {TENANT}
    assert {line["row"]["job_id"] for line in lines if "job_id" in line["row"]} == {job_id}
    assert "u2" not in {line["row"].get("user_id") for line in lines}


async def test_a_user_is_erased_and_the_answer_does_not_say_who(
    deployment: Deployment, console: Clients, everywhere: Everywhere
) -> None:
    await said(deployment)
    async with console("sk-admin") as admin:
        erased = await admin.delete(f"/v1/users/{USER}")
        assert (erased.status_code, erased.json()["state"]) == (200, "done")
        assert erased.json()["counts"]["messages"] == 2
        assert USER not in erased.text
        again = await admin.get(erased.headers["location"])
        assert again.json() == erased.json()
        assert (await admin.get(f"/v1/users/{USER}")).status_code == 404
        repeated = (await admin.delete(f"/v1/users/{USER}")).json()
    assert (repeated["state"], repeated["counts"]) == ("done", {})
    assert await everywhere.find(CANARY, USER) == []


async def test_what_takes_longer_is_answered_202_and_finished_all_the_same(
    deployment: Deployment,
    console: Clients,
    everywhere: Everywhere,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job that was started waits for a worker to end it."""
    await deployment.behave({"faults": [{"status": 429, "retry_after_s": 60}]})
    async with deployment.worker():
        job_id = await deployment.say(CANARY, user=USER)

        async def retrying() -> bool:
            return await state_of(deployment, job_id) == "retrying"

        await eventually(retrying, timeout_s=30)
    monkeypatch.setattr(users, "ANSWER_WITHIN_S", 0.2)
    async with console("sk-admin") as admin:
        begun = await admin.delete(f"/v1/users/{USER}")
        assert begun.status_code == 202
        assert begun.json()["state"] in {"begun", "fenced"}
    assert (
        await deployment.books.fetchval("SELECT count(*) FROM erasures WHERE sealed LIKE '%' || $1 || '%'", USER) == 0
    )

    async def done() -> bool:
        return bool(await deployment.books.fetchval("SELECT state = 'done' FROM erasures"))

    async with deployment.worker():
        await eventually(done)
    assert await everywhere.find(CANARY, USER) == []
    await deployment.check_money()


async def test_each_tenant_reaches_its_own_users(deployment: Deployment, console: Clients) -> None:
    await said(deployment)
    async with console("sk-other-admin") as stranger:
        assert (await stranger.get("/v1/users")).json()["data"] == []
        assert (await stranger.get(f"/v1/users/{USER}")).status_code == 404
        assert (await stranger.get(f"/v1/users/{USER}/export")).status_code == 404
        assert (await stranger.delete(f"/v1/users/{USER}")).json()["counts"] == {}
        assert (await stranger.delete(f"/v1/users/{USER}", params={"tenant": TENANT})).status_code == 403
    async with console("sk-chat-only") as chat:
        assert (await chat.delete(f"/v1/users/{USER}")).status_code == 403
    async with console("sk-operator") as operator:
        assert (await operator.delete(f"/v1/users/{USER}")).status_code == 422, "of which tenant?"
        assert (await operator.get(f"/v1/users/{USER}", params={"tenant": TENANT})).json()["messages"] == 2
        assert (await operator.delete(f"/v1/users/{USER}", params={"tenant": "nobody"})).status_code == 404
        erased = (await operator.delete(f"/v1/users/{USER}", params={"tenant": TENANT})).json()
    assert erased["counts"]["messages"] == 2


async def test_a_conversation_of_nobody_is_erased(
    deployment: Deployment, console: Clients, everywhere: Everywhere
) -> None:
    async with deployment.worker():
        await deployment.ended(await deployment.say(CANARY, user=None, conversation="conv-a1b2"))
    async with console("sk-admin") as admin:
        erased = (await admin.delete("/v1/conversations/conv-a1b2")).json()
    assert (erased["kind"], erased["counts"]["conversations"]) == ("conversation", 1)
    assert await everywhere.find(CANARY, "conv-a1b2") == []


async def test_any_name_is_reached_and_no_other_one(deployment: Deployment, console: Clients) -> None:
    """As users and conversations are named by callers: with slashes, and like a part of another one's."""
    names = ["ada", "ada/profile", "ada/facts/x", "../ada", "a%2Fb", "ä b?c#d", ".", "ada/"]
    for name in names:
        await said(deployment, user=name, conversation=f"talk of {name}")
    async with console("sk-admin") as admin:
        for place, name in enumerate(names[1:], start=1):
            path = f"/v1/users/{quote(name, safe='').replace('.', '%2E')}"
            assert (await admin.get(path)).json()["id"] == name
            assert len((await admin.get(f"{path}/export")).text.splitlines()) == 6, name
            assert (await admin.patch(f"{path}/profile", json={"name": "x"})).json()["user_id"] == name
            assert (await admin.put(f"{path}/facts/home_city", json={"text": "x"})).json()["user_id"] == name
            counts = (await admin.delete(path)).json()["counts"]
            assert (counts["users"], counts["messages"], counts["user_facts"]) == (1, 2, 1), name
            left = (await admin.get("/v1/users")).json()["data"]
            assert {one["id"] for one in left} == {names[0], *names[place + 1 :]}
        conversation = quote(f"talk of {names[0]}/x", safe="")
        assert (await admin.delete(f"/v1/conversations/{conversation}")).json()["counts"] == {}
        for path in ("/v1/users/a%00b", "/v1/conversations/a%00b"):
            assert (await admin.delete(path)).status_code == 404


async def test_the_command_line_does_the_same(
    settings: Settings, deployment: Deployment, everywhere: Everywhere
) -> None:
    await said(deployment)

    def users_cli(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ops", "users", *args]
        return subprocess.run(command, env=environment_of(settings), capture_output=True, text=True, check=False)

    assert USER in users_cli("list", TENANT).stdout
    assert json.loads(users_cli("show", TENANT, USER, "--json").stdout)["messages"] == 2
    assert CANARY in users_cli("export", TENANT, USER).stdout
    assert users_cli("erase", TENANT).returncode == 2
    unanswered = users_cli("erase", TENANT, USER)
    assert unanswered.returncode != 0, "nobody was there to say yes"
    erased = users_cli("erase", TENANT, USER, "--yes")
    assert erased.returncode == 0, erased.stderr
    _id, tenant, kind, state, counts, *_when = erased.stdout.split("\t")
    assert (tenant, kind, state) == (TENANT, "user", "done")
    assert json.loads(counts)["messages"] == 2
    assert users_cli("show", TENANT, USER).returncode == 1
    assert await everywhere.find(CANARY, USER) == []
