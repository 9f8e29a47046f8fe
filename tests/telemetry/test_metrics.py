"""What Prometheus is told: right numbers, by few labels, to those who may ask."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from ops.console.app import create_console
from shared.config import Settings
from shared.errors import ConfigError
from shared.redis import Commands, connect
from shared.telemetry import metrics
from shared.telemetry.metrics import exposition
from tests.conftest import Database, Eventually
from tests.ingress.harness import MESSAGES, Running, accepted
from tests.stack.dev_process import free_base_port
from tests.telemetry.conftest import TOKEN
from tests.telemetry.numbers import grown, numbers
from tests.turn.deployment import Deployment
from workers.delivery import metrics as _delivery  # noqa: F401 - the delivery process's numbers are on the page too
from workers.probes import PORTS, first_free

SCRAPER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def console(settings: Settings, deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    app = create_console(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://console") as client,
    ):
        yield client


Scrape = Callable[[], Awaitable[dict[str, float]]]


@pytest.fixture
async def scrape(ingress: Running) -> AsyncIterator[Scrape]:
    """Ingress and workers are one process in these tests, and share a registry."""
    async with ingress.client(None) as client:

        async def scraped() -> dict[str, float]:
            answer = await client.get("/metrics", headers=SCRAPER)
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"].startswith("text/plain")
            return numbers(answer.text)

        yield scraped


@pytest.mark.parametrize("path", ["/metrics", "/v1/metrics/targets"])
async def test_the_console_shows_numbers_to_the_scraper_and_to_operators_only(
    console: httpx.AsyncClient, path: str
) -> None:
    for authorization, status in (
        (None, 401), ("Bearer wrong", 401), ("Bearer sk-tenant-a", 403),
        ("Bearer sk-operator", 200), (SCRAPER["authorization"], 200),
    ):  # fmt: skip
        headers = {"authorization": authorization} if authorization else {}
        assert (await console.get(path, headers=headers)).status_code == status, authorization


async def test_the_ingress_shows_its_numbers_to_the_scraper_and_to_operators_only(ingress: Running) -> None:
    for key, status in ((None, 401), ("wrong", 401), ("sk-tenant-a", 403), ("sk-operator", 200), (TOKEN, 200)):
        async with ingress.client(key) as client:
            assert (await client.get("/metrics")).status_code == status, key


async def test_requests_and_admissions_are_counted_by_route_and_outcome(ingress: Running, scrape: Scrape) -> None:
    before = await scrape()
    async with ingress.client() as client:
        job = await accepted(client)
        await accepted(client)
        for path in (f"/v1/jobs/{job['id']}", "/v1/jobs/none", "/nowhere/1", "/nowhere/2"):
            await client.get(path)
        await client.request("BREW", "/")
        await client.post(MESSAGES, json={"message": "x", "user_id": "ada", "conversation_id": "c"})
        await client.post(MESSAGES, json={"message": "x", "user_id": "bob", "conversation_id": "c"})
    new = grown(before, await scrape())
    requests = "switchboard_http_requests_total"
    assert {name: count for name, count in new.items() if name.startswith(requests)} == {
        f"{requests}{{method=POST,route=/v1/agents/{{agent_id}}/messages,status=202}}": 3,
        f"{requests}{{method=POST,route=/v1/agents/{{agent_id}}/messages,status=422}}": 1,
        f"{requests}{{method=GET,route=/v1/jobs/{{job_id}},status=200}}": 1,
        f"{requests}{{method=GET,route=/v1/jobs/{{job_id}},status=404}}": 1,
        f"{requests}{{method=GET,route=unmatched,status=404}}": 2,
        f"{requests}{{method=other,route=/,status=405}}": 1,
        f"{requests}{{method=GET,route=/metrics,status=200}}": 1,
    }
    durations = "switchboard_http_request_duration_seconds_count{method=POST,route=/v1/agents/{agent_id}/messages}"
    assert new[durations] == 4
    assert new["switchboard_admissions_total{agent=support,outcome=accepted}"] == 3
    assert new["switchboard_admissions_total{agent=support,outcome=owner}"] == 1


async def test_jobs_attempts_calls_and_money_are_counted(
    ingress: Running, deployment: Deployment, scrape: Scrape
) -> None:
    await deployment.behave(
        {"match": "once", "faults": [{"status": 500}]}, {"match": "never", "faults": [{"status": 400}]}, {}
    )
    before = await scrape()
    async with deployment.worker() as worker:
        for text in ("fine", "once", "never"):
            job_id = await deployment.say(text, conversation=text)
            await deployment.ended(job_id)
        unknown = await deployment.ended(await deployment.say("x", agent="nobody"))
        state = numbers(exposition().decode())
        assert state["switchboard_worker_slots{queue=default}"] == worker.max_jobs
        assert state["switchboard_worker_ready{queue=default}"] == 1
        assert state["switchboard_jobs_claimed_total{queue=default}"] == 5
        new = grown(before, await scrape())
    assert unknown.state == "dead"
    rows = await deployment.books.fetch("SELECT * FROM llm_calls")
    assert {
        name: count
        for name, count in new.items()
        if name.startswith(("switchboard_jobs_ended", "switchboard_attempts", "switchboard_retries"))
    } == {
        "switchboard_jobs_ended_total{agent=support,state=succeeded}": 2,
        "switchboard_jobs_ended_total{agent=support,state=dead}": 1,
        "switchboard_jobs_ended_total{agent=unknown,state=dead}": 1,
        "switchboard_attempts_total{agent=support,outcome=ended}": 3,
        "switchboard_attempts_total{agent=support,outcome=retried}": 1,
        "switchboard_attempts_total{agent=unknown,outcome=ended}": 1,
        "switchboard_retries_total{agent=support,code=upstream_unavailable}": 1,
    }
    model = "model=gpt-5.4-mini,provider=openai"
    assert new[f"switchboard_model_calls_total{{{model},status=ok}}"] == 2
    assert new[f"switchboard_model_calls_total{{{model},status=error}}"] == 2
    booked = sum(row["cost_nano_usd"] for row in rows) / 1e9
    assert new[f"switchboard_model_cost_usd_total{{agent=support,{model}}}"] == pytest.approx(booked)
    for kind in ("input", "output"):
        name = f"switchboard_model_tokens_total{{agent=support,kind={kind},{model}}}"
        assert new[name] == sum(row[f"{kind}_tokens"] for row in rows)
    for histogram, count in {
        "job_wait": 3, "attempt_duration": 4, "first_token": 2,
    }.items():  # fmt: skip
        assert new[f"switchboard_{histogram}_seconds_count{{agent=support}}"] == count
    assert new["switchboard_job_duration_seconds_count{agent=support,state=succeeded}"] == 2


async def test_no_callers_word_becomes_a_label(ingress: Running, deployment: Deployment, scrape: Scrape) -> None:
    async with ingress.client() as client, deployment.worker():
        await client.get("/v1/agents/penguin/messages")
        await client.post("/v1/agents/penguin/messages", json={"message": "penguin"})
        await client.get("/penguin/penguin")
        await client.request("PENGUIN", "/")
        job = await accepted(client, "penguin", conversation_id="penguin", user_id="penguin", domain="penguin")
        await deployment.ended(job["id"])
        await deployment.ended(await deployment.say("x", agent="penguin"))
    assert "penguin" not in str(await scrape()).lower()


async def test_two_workers_of_one_host_with_one_setting_are_both_found_and_scraped(
    deployment: Deployment, console: httpx.AsyncClient, eventually: Eventually
) -> None:
    base = free_base_port()

    async def targets() -> list[str]:
        groups = (await console.get("/v1/metrics/targets", headers=SCRAPER)).json()
        assert all(group["labels"] == {"process": "worker", "queue": "default"} for group in groups)
        return [target for group in groups for target in group["targets"]]

    async def both() -> list[str]:
        found = await targets()
        return found if len(found) == 2 else []

    async with deployment.worker(metrics_port=base):
        async with deployment.worker(metrics_port=base), httpx.AsyncClient() as client:
            first, second = await eventually(both)
            assert first != second
            for address in (first, second):
                shown = await client.get(f"http://{address}/metrics", headers=SCRAPER)
                assert "switchboard_worker_slots" in shown.text
                assert (await client.get(f"http://{address}/metrics")).status_code == 401
                assert (await client.get(f"http://{address}/health/live")).json() == {"status": "ok"}
        assert len(await targets()) == 1
    assert await targets() == []


async def test_an_entry_of_a_killed_worker_is_not_shown_once_it_is_old(
    console: httpx.AsyncClient, redis: Redis
) -> None:
    now_s, _ = await redis.time()
    await redis.zadd("sb:scrape", {"default host:1": now_s - 1, "slow host:2": now_s + 30})
    (group,) = (await console.get("/v1/metrics/targets", headers=SCRAPER)).json()
    assert group == {"targets": ["host:2"], "labels": {"process": "worker", "queue": "slow"}}


async def test_without_a_setting_a_worker_listens_nowhere(deployment: Deployment, redis: Redis) -> None:
    async with deployment.worker():
        await deployment.ended(await deployment.say("hello"))
        assert await redis.exists("sb:scrape") == 0


async def test_a_worker_is_ready_with_its_lease_and_postgres_and_only_then(
    deployment: Deployment, eventually: Eventually, database: Database
) -> None:
    port = free_base_port()

    async def parts() -> tuple[int, dict[str, str]]:
        answer = await client.get(f"http://127.0.0.1:{port}/health/ready")
        return answer.status_code, answer.json()["parts"]

    async def is_ready() -> bool:
        return await parts() == (200, {"lease": "ok", "postgres": "ok"})

    async def is_without_postgres() -> bool:
        return await parts() == (503, {"lease": "ok", "postgres": "cannot be reached"})

    async def is_without_lease() -> bool:
        return (await parts())[1]["lease"] == "none"

    async with httpx.AsyncClient(timeout=90) as client, deployment.worker(metrics_port=port, lease_s=2.0) as worker:
        await eventually(is_ready)
        await deployment.books.execute(f"ALTER DATABASE {database.name} CONNECTION LIMIT 0")
        await deployment.books.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'switchboard_app' AND datname = $1",
            database.name,
        )
        await eventually(is_without_postgres)
        await deployment.books.execute(f"ALTER DATABASE {database.name} CONNECTION LIMIT -1")
        await eventually(is_ready)
        await deployment.commands.run("CLIENT", "PAUSE", 600_000, "WRITE")  # beats get no answer: the lease runs out
        try:
            await eventually(is_without_lease)
        finally:
            await deployment.commands.run("CLIENT", "UNPAUSE")
        await eventually(is_ready)
        worker.allow_pick_jobs = False
        assert await parts() == (503, {"lease": "given up: draining", "postgres": "ok"})


def test_ports_are_tried_in_order_and_a_full_range_is_said() -> None:
    base = free_base_port()
    with first_free("127.0.0.1", base) as one, first_free("127.0.0.1", base) as two:
        assert one.getsockname()[1] == base
        assert base < two.getsockname()[1] < base + PORTS
    with pytest.raises(ConfigError, match="SWITCHBOARD_METRICS_PORT=65535: neither"), first_free("127.0.0.1", 65_535):
        first_free("127.0.0.1", 65_535)


async def test_the_console_tells_of_the_whole_deployment(
    console: httpx.AsyncClient, deployment: Deployment, settings: Settings
) -> None:
    await deployment.behave({"match": "never", "faults": [{"status": 400}]}, {})
    async with deployment.worker():
        await deployment.ended(await deployment.say("never"))
    await deployment.say("waits")
    told = numbers((await console.get("/metrics", headers=SCRAPER)).text)
    assert told["switchboard_queue_depth{queue=default}"] == 1
    assert told["switchboard_queue_desired_workers{queue=default}"] == 1
    assert told["switchboard_dead_jobs{agent=support}"] == 1
    assert told["switchboard_ends_waiting{}"] == 0
    assert told["switchboard_redis_memory_used_bytes{}"] > 0
    assert {name: up for name, up in told.items() if "collector_up" in name} == {
        f"switchboard_collector_up{{collector={part}}}": 1
        for part in (
            *("queues", "models", "redis_memory", "budgets"),
            *("dead_jobs", "memory_tasks", "memory_outbox", "deliveries", "erasures"),
        )
    }
    assert told["switchboard_postgres_pool_limit_connections{}"] >= 2 * settings.db_pool_size
    await deployment.say("another")
    kept = numbers((await console.get("/metrics", headers=SCRAPER)).text)
    assert kept["switchboard_queue_depth{queue=default}"] == 1, "a second scrape in a moment asks nobody"


async def test_a_process_knows_how_late_its_loop_and_how_quick_its_redis_is(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(metrics, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(metrics, "PING_EVERY_LOOKS", 2)
    before = numbers(exposition().decode())
    commands = Commands(connect(redis_url))

    def new(name: str) -> float:
        return grown(before, numbers(exposition().decode())).get(name, 0)

    async with metrics.vitals(lambda: [commands], list):
        await eventually(lambda: new("switchboard_redis_ping_seconds_count{}") >= 2)
        assert new("switchboard_event_loop_lag_seconds_count{}") >= 4
        assert new("switchboard_redis_round_trips_total{}") >= 2
        assert new("switchboard_redis_ping_failures_total{}") == 0
        await commands.aclose()
        await eventually(lambda: new("switchboard_redis_ping_failures_total{}") >= 1)


async def test_the_page_names_every_metric_and_no_other(console: httpx.AsyncClient, deployment: Deployment) -> None:
    async with deployment.worker():
        text = (await console.get("/metrics", headers=SCRAPER)).text
    page = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    told = set(re.findall(r"^# TYPE (switchboard_\w+) ", text, re.MULTILINE))
    assert set(re.findall(r"`(switchboard_\w+)", page)) == told


async def test_the_console_tells_what_waits_beside_the_conversations(
    console: httpx.AsyncClient, deployment: Deployment, ingress: Running
) -> None:
    books = deployment.books
    async with deployment.worker(), ingress.client() as client:
        job = await accepted(client, callback_url="https://example.com/hook")
        await deployment.ended(job["id"])
    await books.execute(
        "INSERT INTO erasures (tenant_id, kind, subject, sealed, erased_before, requested_by, lease_until) "
        "VALUES ('acme', 'user', $1, 'x', now(), 'tests', now() + interval '1 hour')",  # nobody goes on with it
        "0" * 32,
    )
    for table, column in (("deliveries", "created_at"), ("memory_outbox", "created_at"), ("erasures", "requested_at")):
        await books.execute(f"UPDATE {table} SET {column} = now() - interval '1 hour'")  # noqa: S608 - names from here
    told = numbers((await console.get("/metrics", headers=SCRAPER)).text)
    assert told["switchboard_deliveries_open{kind=webhook,state=pending}"] == 1
    assert told["switchboard_memory_outbox_turns{}"] == 1
    assert told["switchboard_erasures_open{}"] == 1
    for name in ("delivery_lag", "memory_outbox_oldest", "erasure_oldest"):
        assert told[f"switchboard_{name}_seconds{{}}"] == pytest.approx(3_600, abs=600)
    assert (told["switchboard_channels_paused{}"], told["switchboard_endpoints_disabled{}"]) == (0, 0)
    spent = await books.fetchval("SELECT sum(cost_nano_usd) FROM llm_calls")
    assert told["switchboard_budget_spent_ratio{scope=global-day}"] == pytest.approx(float(spent) / 50e9)
    assert "switchboard_budget_spent_ratio{scope=global-month}" not in told, "there is no such budget"
