"""Who may call: keys, scopes, how fast a revocation holds, and how rarely anybody is asked."""

import asyncio
import time

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from ingress.auth import ApiKeys, Principal
from ingress.strangers import Strangers
from shared import keys
from shared.config import Settings
from shared.errors import RateLimited, Unavailable
from shared.redis import Commands
from tests.conftest import Database, Eventually
from tests.ingress.harness import MESSAGES, Ageing, Running, sha256

ROUTES = [
    ("GET", "/v1/agents"),
    ("POST", MESSAGES),
    ("GET", "/v1/jobs/x"),
    ("DELETE", "/v1/jobs/x"),
    ("GET", "/v1/jobs/x/events"),
]


class Archive:
    """Answers as told, and counts how often it is asked."""

    def __init__(self, *tenants: str) -> None:
        self.known = {sha256(f"key-of-{tenant}"): Principal(tenant, ["chat"]) for tenant in tenants}
        self.asked = 0
        self.down = False

    async def api_key(self, sha256: str) -> Principal | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("down")
        return self.known.get(sha256)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer ", "Basic sk-tenant-a", "Bearer sk-nobody-has-this", "Bearer sk tenant a", "Bearer é"],
)
async def test_without_a_valid_key_every_route_is_401(
    anonymous: httpx.AsyncClient, redis: Redis, method: str, path: str, authorization: str | None
) -> None:
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    response = await anonymous.request(method, path, headers=headers, content=b'{"message": "x"}')
    assert (response.status_code, response.json()["type"]) == (401, "/problems/unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert await redis.keys("arq:*") == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case(anonymous: httpx.AsyncClient, scheme: str) -> None:
    response = await anonymous.get("/v1/agents", headers={"authorization": f"{scheme} sk-tenant-a"})
    assert response.status_code == 200


async def test_admin_may_do_what_chat_may(running: Running) -> None:
    async with running.client("sk-admin-of-a") as admin:
        assert (await admin.post(MESSAGES, json={"message": "x"})).status_code == 202


async def test_a_key_without_the_scope_is_403(running: Running, redis: Redis, client: httpx.AsyncClient) -> None:
    principal = b'{"tenant": "a", "scopes": ["read-only"]}'
    await redis.set(keys.api_key(sha256("sk-of-a-later-scope")), principal, px=86_400_000)
    async with running.client("sk-of-a-later-scope") as limited:
        response = await limited.get("/v1/agents")
    assert (response.status_code, response.json()["type"]) == (403, "/problems/forbidden")


async def test_a_revoked_key_is_refused_within_the_promised_time(
    ageing: Ageing, running: Running, client: httpx.AsyncClient, with_keys: Database
) -> None:
    assert (await client.get("/v1/agents")).status_code == 200
    owner = await asyncpg.connect(with_keys.ops)
    await owner.execute("UPDATE api_keys SET revoked_at = now() WHERE key_sha256 = $1", sha256("sk-tenant-a"))
    await owner.close()
    await ageing.go_by(running.settings.key_cache_ttl_s)
    assert (await client.get("/v1/agents")).status_code == 401


async def test_a_key_in_use_never_waits_and_is_confirmed_in_the_background(
    redis_url: str, eventually: Eventually
) -> None:
    async with api_keys(redis_url, Archive("a"), ttl_s=0.4) as (known, archive):
        await known.resolve("key-of-a")
        assert archive.asked == 1
        archive.known.clear()

        async def refused() -> bool:
            return (await known.resolve("key-of-a"))[1] is None

        await eventually(refused)
        assert archive.asked == 2  # the refresh that half the time to live started, and no other


async def test_a_key_that_is_being_confirmed_is_at_hand_for_as_long_as_it_may_be_used(redis_url: str) -> None:
    """Else everything that comes meanwhile, in each second of a busy process, would go the dear way."""
    key, ttl_s = "key-of-a", 1_000.0
    async with api_keys(redis_url, Archive("a"), ttl_s=ttl_s) as (known, _):

        def at_hand(age_s: float) -> bool:
            known.keys._known._remember(sha256(key), Principal("a", ["chat"]), time.monotonic() - age_s)
            return known.keys.at_hand(f"Bearer {key}".encode()) is not None

        await known.resolve(key)
        assert [at_hand(0), at_hand(ttl_s / 2 - 9), at_hand(ttl_s / 2 + 9)] == [True, True, False]
        await known.resolve(key)  # which does not wait, and begins to confirm it
        assert [at_hand(ttl_s / 2 + 9), at_hand(ttl_s - 9), at_hand(ttl_s)] == [True, True, False]


async def test_many_requests_with_a_new_key_ask_once(redis_url: str) -> None:
    async with api_keys(redis_url, Archive("a")) as (known, archive):
        found = await asyncio.gather(*(known.resolve("key-of-a") for _ in range(50)))
        assert {principal.tenant for _, principal in found if principal} == {"a"}
        assert archive.asked == 1


async def test_a_wrong_key_is_remembered_too(redis_url: str, redis: Redis) -> None:
    async with api_keys(redis_url, Archive("a")) as (known, archive):
        for _ in range(5):
            assert (await known.resolve("key-of-nobody"))[1] is None
        assert archive.asked == 1
        assert await redis.keys("sb:apikey:*") == []  # strangers cannot fill Redis


async def test_processes_share_one_answer(redis_url: str) -> None:
    async with api_keys(redis_url, Archive("a")) as (one, first), api_keys(redis_url, Archive("a")) as (two, second):
        await one.resolve("key-of-a")
        assert (await two.resolve("key-of-a"))[1] == Principal("a", ["chat"])
        assert (first.asked, second.asked) == (1, 0)


async def test_an_answer_does_not_get_younger_by_being_shared(redis_url: str, redis: Redis) -> None:
    """A process that adopts an answer from Redis must not use it for a whole time to live again."""
    async with api_keys(redis_url, Archive("a"), ttl_s=10) as (known, archive):
        encoded = b'{"tenant": "a", "scopes": ["chat"]}'
        await redis.set(keys.api_key(sha256("key-of-a")), encoded, px=86_400_000 - 6_000)
        await known.resolve("key-of-a")
        assert archive.asked == 1  # six of ten seconds old: asked again rather than adopted


async def test_an_adopted_answer_is_used_for_the_rest_of_its_time_only(
    ageing: Ageing, redis_url: str, redis: Redis, eventually: Eventually
) -> None:
    async with api_keys(redis_url, Archive("a"), ttl_s=1_000) as (known, archive):
        encoded = b'{"tenant": "a", "scopes": ["chat"]}'
        await redis.set(keys.api_key(sha256("key-of-a")), encoded, px=86_400_000 - 300_000)
        await known.resolve("key-of-a")
        archive.known.clear()
        await ageing.go_by(50)
        assert (await known.resolve("key-of-a"))[1] == Principal("a", ["chat"])
        assert archive.asked == 0
        await ageing.go_by(150.001)  # half of its time was over when 200 of these seconds were

        async def refused() -> bool:
            return (await known.resolve("key-of-a"))[1] is None

        await eventually(refused)
        assert archive.asked == 1


async def test_what_another_version_left_in_redis_is_asked_for_again(redis_url: str, redis: Redis) -> None:
    """A deploy changes what a key is kept as; its requests must not fail for a day."""
    async with api_keys(redis_url, Archive("a")) as (known, archive):
        await redis.set(keys.api_key(sha256("key-of-a")), b'{"organisation": "a"}', px=86_400_000)
        assert (await known.resolve("key-of-a"))[1] == Principal("a", ["chat"])
        assert archive.asked == 1
        assert b'"tenant":"a"' in await redis.get(keys.api_key(sha256("key-of-a")))


async def test_a_key_that_is_not_confirmed_is_logged_by_the_beginning_of_its_hash(redis_url: str) -> None:
    with capture_logs() as lines:
        async with api_keys(redis_url, Archive()) as (known, archive):
            archive.down = True
            with pytest.raises(Unavailable):
                await known.resolve("key-of-a")
    name = keys.api_key(sha256("key-of-a"))
    assert [line["what"] for line in lines if line["event"] == "not_confirmed"] == [name[:30]]


async def test_known_keys_work_while_postgres_is_down_and_unknown_ones_do_not(redis_url: str, redis: Redis) -> None:
    async with api_keys(redis_url, Archive("a"), ttl_s=0.01) as (known, archive):
        await known.resolve("key-of-a")
        archive.down = True
        assert (await known.resolve("key-of-a"))[1] == Principal("a", ["chat"])
        with pytest.raises(Unavailable):
            await known.resolve("key-of-b")


async def test_the_cache_is_bounded(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.known.MAX_KNOWN", 3)
    async with api_keys(redis_url, Archive("a"), ttl_s=60) as (known, archive):
        for n in range(5):
            await known.resolve(f"key-number-{n}")
        await known.resolve("key-number-4")
        assert archive.asked == 5
        await known.resolve("key-number-0")
        assert archive.asked == 6


STRANGERS_PER_MIN = 30


async def test_a_flood_of_wrong_keys_reaches_postgres_thirty_times(redis_url: str) -> None:
    """At the same time too: each is counted before its question."""
    async with api_keys(redis_url, Archive("a")) as (known, archive):
        asked = [known.resolve(f"key-that-is-none-{n}") for n in range(200)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert archive.asked == STRANGERS_PER_MIN
        assert sum(isinstance(answer, RateLimited) for answer in answers) == 200 - STRANGERS_PER_MIN
        with pytest.raises(RateLimited):
            await known.resolve("key-that-is-none-at-all")
        assert (await known.resolve("key-of-nobody", address="192.0.2.2"))[1] is None
        assert archive.asked == STRANGERS_PER_MIN + 1


async def test_valid_keys_are_not_counted_and_pass_when_they_are_known(redis_url: str, redis: Redis) -> None:
    tenants = [f"t{n}" for n in range(40)]
    async with api_keys(redis_url, Archive(*tenants)) as (known, _archive):
        for tenant in tenants:
            assert (await known.resolve(f"key-of-{tenant}"))[1] == Principal(tenant, ["chat"])
        assert await redis.keys("sb:rate:*") == []
    async with api_keys(redis_url, Archive(*tenants, "new"), ttl_s=0.01) as (known, _archive):
        for n in range(STRANGERS_PER_MIN):
            await known.resolve(f"key-that-is-none-{n}")
        for _ in range(2):  # known to Redis, then to the process as well, both for longer than they may be used unasked
            for tenant in tenants:
                assert (await known.resolve(f"key-of-{tenant}"))[1] == Principal(tenant, ["chat"])
        with pytest.raises(RateLimited):
            await known.resolve("key-of-new")


async def test_a_question_that_postgres_could_not_answer_is_not_counted(redis_url: str, redis: Redis) -> None:
    async with api_keys(redis_url, Archive("a")) as (known, archive):
        archive.down = True
        for n in range(STRANGERS_PER_MIN + 5):
            with pytest.raises(Unavailable):
                await known.resolve(f"key-of-somebody-{n}")
        assert await redis.keys("sb:rate:*") == []


class Asking:
    """`ApiKeys`, asked from one address."""

    def __init__(self, keys: ApiKeys, strangers: Strangers) -> None:
        self.keys, self._strangers = keys, strangers

    async def resolve(self, key: str, address: str = "192.0.2.1") -> tuple[str, Principal | None]:
        scope = {"type": "http", "client": (address, 1), "headers": []}
        return await self.keys.resolve(key, self._strangers.attempt(scope))


class api_keys:  # noqa: N801 - reads as a function
    def __init__(self, url: str, archive: Archive, *, ttl_s: float = 5.0) -> None:
        self._commands = Commands(Redis.from_url(url))
        self._archive = archive
        self._keys = ApiKeys(self._commands, archive, ttl_s=ttl_s)
        self._strangers = Strangers(self._commands, Settings.read({"REDIS_URL": url}))

    async def __aenter__(self) -> tuple[Asking, Archive]:
        return Asking(self._keys, self._strangers), self._archive

    async def __aexit__(self, *_: object) -> None:
        await self._keys.aclose()
        await self._commands.aclose()
