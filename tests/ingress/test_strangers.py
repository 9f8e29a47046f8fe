"""Requests without a valid key: thirty a minute from an address, whatever they lack, and who else is at it."""

import httpx
import pytest
from redis.asyncio import Redis

from ingress.address import NOWHERE, client_address, networks
from shared.config import Settings
from tests.conftest import Database
from tests.ingress.harness import MESSAGES, Running, settings_for, started
from tests.limits.clock import SECOND, Clock, edited

BOGUS = {"authorization": "Bearer sk-of-nobody-at-all"}


async def test_the_thirty_first_request_without_a_valid_key_is_429_until_the_first_is_a_minute_old(
    running: Running, anonymous: httpx.AsyncClient, redis: Redis
) -> None:
    with edited():
        clock = Clock(redis)
        for n in range(30):
            await clock.move(SECOND)
            headers = [{}, BOGUS, {"authorization": f"Bearer sk-number-{n}"}, {"authorization": "Basic x"}][n % 4]
            assert (await anonymous.get("/v1/agents", headers=headers)).status_code == 401
        await clock.move(SECOND // 2)
        for path in ("/v1/agents", "/v1/jobs/x?token=no", "/metrics"):
            refused = await anonymous.get(path)
            assert (refused.status_code, refused.json()["type"]) == (429, "/problems/rate_limited")
            assert (refused.json()["level"], refused.headers["retry-after"]) == ("address", "31")
            assert "address" in refused.json()["detail"]
        await clock.move(31 * SECOND - SECOND // 2)
        assert (await anonymous.post(MESSAGES, headers=BOGUS)).status_code == 401
        assert (await anonymous.post(MESSAGES, headers=BOGUS)).status_code == 429


async def test_a_valid_key_behind_the_same_address_works_on(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, redis: Redis
) -> None:
    assert (await client.get("/v1/agents")).status_code == 200
    for _ in range(40):
        last = await anonymous.get("/v1/agents", headers=BOGUS)
    assert last.status_code == 429
    for _ in range(5):
        assert (await client.post(MESSAGES, json={"message": "hello"})).status_code == 202
    assert await redis.llen("sb:rate:address:127.0.0.1") == 30


@pytest.fixture
async def behind_a_proxy(redis_url: str, with_keys: Database) -> Settings:
    return settings_for(redis_url, with_keys.app, trusted_proxies="127.0.0.0/8", unauthorized_per_min=2)


async def test_behind_a_trusted_proxy_each_client_has_a_window_of_its_own(behind_a_proxy: Settings) -> None:
    async with started(behind_a_proxy) as running, running.client(None) as client:
        for address in ("198.51.100.1", "198.51.100.2"):
            forwarded = {"x-forwarded-for": f"6.6.6.6, {address}"}  # the client may have sent the first one itself
            statuses = [(await client.get("/v1/agents", headers=forwarded)).status_code for _ in range(3)]
            assert statuses == [401, 401, 429]


async def test_who_is_no_trusted_proxy_cannot_name_another_address(running: Running, redis: Redis) -> None:
    async with running.client(None) as client:
        for n in range(3):
            await client.get("/v1/agents", headers={"x-forwarded-for": f"198.51.100.{n}"})
    assert await redis.keys("sb:rate:*") == [b"sb:rate:address:127.0.0.1"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),  # no proxy of ours
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 198.51.100.2"], "198.51.100.2"),
        ("10.0.0.1", ["198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1", "198.51.100.2, 10.0.0.9"], "198.51.100.2"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["rubbish"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, rubbish"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("2001:db8:1:2:aaaa::1", [], "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("fd00::5", ["198.51.100.1"], "198.51.100.1"),
        ("", ["198.51.100.1"], NOWHERE),
        (None, [], NOWHERE),
    ],
)
def test_the_address_is_the_first_that_is_no_trusted_proxy(peer: str | None, forwarded: list[str], found: str) -> None:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    scope = {"type": "http", "client": None if peer is None else (peer, 1), "headers": headers}
    assert client_address(scope, networks("10.0.0.0/8, fd00::/8")) == found
