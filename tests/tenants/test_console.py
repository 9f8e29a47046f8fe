"""Tenants and keys over HTTP: who may do what, what is refused, what is written down."""

import hashlib
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import Database
from tests.ingress.harness import sha256
from tests.tenants.conftest import KEYS, Clients


async def made(operator: httpx.AsyncClient, tenant: str = "new", **settings: Any) -> dict[str, Any]:
    response = await operator.post("/v1/tenants", json={"id": tenant, "name": "New Ltd", "settings": settings})
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_an_operator_makes_a_tenant_and_everything_has_its_plan(operator: httpx.AsyncClient) -> None:
    tenant = await made(operator, plan="pro", rates={"user_per_min": 20.0})
    assert (tenant["object"], tenant["settings_version"], tenant["disabled_at"]) == ("tenant", 1, None)
    assert tenant["settings"] == {"plan": "pro", "rates": {"user_per_min": 20}}
    assert tenant["in_force"]["rates"]["tenant_per_min"] == 300
    assert (await operator.get("/v1/tenants/new")).json() == tenant
    again = await operator.post("/v1/tenants", json={"id": "new", "name": "Another"})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/tenant_exists")


async def test_tenants_are_listed_in_pages(operator: httpx.AsyncClient) -> None:
    for n in range(5):
        await made(operator, f"page-{n}")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await operator.get("/v1/tenants", params={"limit": 3, **cursor})).json()
        seen += [tenant["id"] for tenant in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == sorted({"acme", "house", "other", *(f"page-{n}" for n in range(5))})


async def test_a_patch_changes_what_it_names_and_is_written_down(operator: httpx.AsyncClient) -> None:
    await made(operator, greeting="hi", rates={"user_per_min": 20, "tenant_per_min": 50})
    patch = {"settings": {"greeting": None, "rates": {"user_per_min": 25}}, "name": "Newer"}
    changed = (await operator.patch("/v1/tenants/new", json=patch)).json()
    assert changed["settings"] == {"rates": {"user_per_min": 25, "tenant_per_min": 50}}
    assert (changed["settings_version"], changed["name"]) == (2, "Newer")

    change, creation = (await operator.get("/v1/tenants/new/changes")).json()["data"]
    assert creation["action"] == "created"
    assert (change["action"], change["changed_by"]) == ("changed", f"key:{sha256('sk-operator')[:12]}")
    assert change["before"]["settings"]["greeting"] == "hi"
    assert change["after"] == {"name": "Newer", "settings": changed["settings"], "settings_version": 2}


async def test_a_patch_that_changes_nothing_is_no_change(operator: httpx.AsyncClient) -> None:
    await made(operator, greeting="hi")
    same = await operator.patch("/v1/tenants/new", json={"settings": {"greeting": "hi"}})
    assert same.json()["settings_version"] == 1
    assert len((await operator.get("/v1/tenants/new/changes")).json()["data"]) == 1


async def test_a_stale_version_is_409_and_changes_nothing(operator: httpx.AsyncClient) -> None:
    await made(operator)
    first = {"settings": {"greeting": "one"}, "settings_version": 1}
    assert (await operator.patch("/v1/tenants/new", json=first)).status_code == 200
    late = await operator.patch("/v1/tenants/new", json={"settings": {"greeting": "two"}, "settings_version": 1})
    assert (late.status_code, late.json()["type"]) == (409, "/problems/stale_version")
    assert (await operator.get("/v1/tenants/new")).json()["settings"] == {"greeting": "one"}


async def test_all_faults_of_a_document_are_said_and_nothing_is_stored(operator: httpx.AsyncClient) -> None:
    wrong = {"settings": {"rates": {"user_per_min": -5}, "agents": {"support": {"models": ["openai:gpt-9"]}}, "x": 1}}
    refused = await operator.patch("/v1/tenants/acme", json=wrong)
    assert refused.status_code == 422
    assert sorted(fault["field"] for fault in refused.json()["errors"]) == [
        "settings/agents/support/models/0",
        "settings/rates/user_per_min",
        "settings/x",
    ]
    assert (await operator.get("/v1/tenants/acme")).json()["settings"] == {}


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b'{"settings": 1}',
        b'{"name": ""}',
        b'{"settings_version": 0}',
        b'{"settings": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b'{"settings": {"rates": ' + b"[" * 50 + b"]" * 50 + b"}}",
        b'{"settings": {"greeting": "\\u0000"}}',
    ],
)
async def test_a_body_that_is_none_is_refused(operator: httpx.AsyncClient, body: bytes) -> None:
    response = await operator.patch("/v1/tenants/acme", content=body)
    assert response.status_code in {400, 422}, response.text


@pytest.mark.parametrize("tenant", ["Acme", "-x", "a" * 64, "a b", "é"])
async def test_an_id_that_is_none_makes_no_tenant(operator: httpx.AsyncClient, tenant: str) -> None:
    response = await operator.post("/v1/tenants", json={"id": tenant, "name": "x"})
    assert [fault["field"] for fault in response.json()["errors"]] == ["id"]
    assert (await operator.get(f"/v1/tenants/{tenant}")).status_code == 404


async def test_a_new_key_is_shown_once_and_stored_as_its_hash(operator: httpx.AsyncClient, database: Database) -> None:
    response = await operator.post("/v1/tenants/acme/keys", json={"label": "shop", "scopes": ["chat", "admin"]})
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    created = response.json()
    key = created.pop("key")
    assert key.startswith("sk-sb-")
    assert len(key) == len("sk-sb-") + 43  # 256 bits in base64url
    assert created["id"] == hashlib.sha256(key.encode()).hexdigest()[:12]
    listed = (await operator.get("/v1/tenants/acme/keys")).json()["data"]
    assert created in listed
    assert key not in str(listed)
    assert key not in str((await operator.get("/v1/tenants/acme/changes")).json())


async def test_a_key_that_was_made_opens_and_one_that_was_revoked_does_not(
    operator: httpx.AsyncClient, console: Clients
) -> None:
    made_key = (await operator.post("/v1/tenants/acme/keys", json={"scopes": ["admin"]})).json()
    async with console(made_key["key"]) as fresh:
        revoked = await operator.delete(f"/v1/keys/{made_key['id']}")
        assert (revoked.status_code, revoked.json()["revoked_at"] is None) == (200, False)
        assert (await fresh.get("/v1/tenants/acme")).status_code == 401
    again = await operator.delete(f"/v1/keys/{made_key['id']}")
    assert again.json() == revoked.json()
    assert (await operator.delete("/v1/keys/000000000000")).status_code == 404
    assert (await operator.delete("/v1/keys/sk-sb-x")).status_code == 404


async def test_a_key_ends_at_its_time(operator: httpx.AsyncClient, console: Clients, database: Database) -> None:
    body = {"scopes": ["admin"], "expires_at": "2099-01-01T00:00:00Z"}
    made_key = (await operator.post("/v1/tenants/acme/keys", json=body)).json()
    assert made_key["expires_at"].startswith("2099-01-01T00:00:00")
    ops = await asyncpg.connect(database.ops)
    await ops.execute(
        "UPDATE api_keys SET expires_at = now() WHERE key_sha256 = $1",
        hashlib.sha256(made_key["key"].encode()).hexdigest(),
    )
    await ops.close()
    async with console(made_key["key"]) as late:
        assert (await late.get("/v1/tenants/acme")).status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes/0"),
        ({"scopes": ["chat", "chat"]}, "scopes"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": 1}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"label": "\0"}, "label"),
        ({"lable": "x"}, "lable"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(operator: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    response = await operator.post("/v1/tenants/acme/keys", json=body)
    assert response.status_code == 422, response.text
    assert [fault["field"] for fault in response.json()["errors"]] == [field]


async def test_a_disabled_tenant_is_refused_until_it_is_enabled(operator: httpx.AsyncClient, console: Clients) -> None:
    disabled = await operator.post("/v1/tenants/acme/disable")
    assert disabled.json()["disabled_at"] is not None
    assert (await operator.post("/v1/tenants/acme/disable")).json() == disabled.json()
    async with console("sk-admin") as admin:
        assert (await admin.get("/v1/tenants/acme")).status_code == 401
    assert (await operator.post("/v1/tenants/acme/enable")).json()["disabled_at"] is None
    actions = [change["action"] for change in (await operator.get("/v1/tenants/acme/changes")).json()["data"]]
    assert actions[:2] == ["enabled", "disabled"]


# --- a tenant's own key -------------------------------------------------------------------------------------------


async def test_an_admin_sees_its_own_tenant_only(admin: httpx.AsyncClient) -> None:
    listed = (await admin.get("/v1/tenants")).json()["data"]
    assert [tenant["id"] for tenant in listed] == ["acme"]
    assert (await admin.get("/v1/tenants/acme")).status_code == 200
    for tenant in ("other", "nobody", "Not-An-Id"):
        assert (await admin.get(f"/v1/tenants/{tenant}")).status_code == 403


async def test_an_admin_changes_its_settings_within_its_plan(admin: httpx.AsyncClient) -> None:
    mine = {"settings": {"greeting": "hi", "rates": {"user_per_min": 10}}}
    assert (await admin.patch("/v1/tenants/acme", json=mine)).status_code == 200
    more = {"settings": {"plan": "enterprise", "rates": {"user_per_min": 31}, "budgets": {"user_month_usd": "11"}}}
    refused = await admin.patch("/v1/tenants/acme", json=more)
    assert refused.status_code == 422
    assert sorted(fault["field"] for fault in refused.json()["errors"]) == [
        "settings/budgets/user_month_usd",
        "settings/plan",
        "settings/rates/user_per_min",
    ]


async def test_an_admin_makes_and_revokes_its_own_keys_but_no_operators(
    admin: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    made_key = (await admin.post("/v1/tenants/acme/keys", json={"scopes": ["chat"]})).json()
    assert (await admin.delete(f"/v1/keys/{made_key['id']}")).status_code == 200
    assert (await admin.post("/v1/tenants/acme/keys", json={"scopes": ["chat", "operator"]})).status_code == 403
    foreign = sha256("sk-other-chat")[:12]
    assert (await admin.delete(f"/v1/keys/{foreign}")).status_code == 404
    others = (await operator.get("/v1/tenants/other/keys")).json()["data"]
    assert [key["revoked_at"] for key in others] == [None, None]


async def test_only_operators_make_and_switch_tenants(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/v1/tenants", json={"id": "mine", "name": "x"})).status_code == 403
    for verb in ("disable", "enable"):
        assert (await admin.post(f"/v1/tenants/acme/{verb}")).status_code == 403


@pytest.mark.parametrize("key", [None, "sk-chat-only", "sk-nobody"])
async def test_others_see_nothing(console: Clients, key: str | None) -> None:
    status = 403 if key in KEYS else 401
    async with console(key) as client:
        for method, path in (
            ("GET", "/v1/tenants"),
            ("POST", "/v1/tenants"),
            ("GET", "/v1/tenants/acme"),
            ("PATCH", "/v1/tenants/acme"),
            ("POST", "/v1/tenants/acme/disable"),
            ("GET", "/v1/tenants/acme/changes"),
            ("GET", "/v1/tenants/acme/keys"),
            ("POST", "/v1/tenants/acme/keys"),
            ("DELETE", f"/v1/keys/{sha256('sk-chat-only')[:12]}"),
        ):
            assert (await client.request(method, path, json={})).status_code == status, (method, path)


async def test_requests_without_a_valid_key_are_limited_by_address_here_too(console: Clients) -> None:
    async with console("sk-of-nobody") as stranger:
        statuses = [(await stranger.get("/v1/tenants")).status_code for _ in range(31)]
    assert statuses == [401] * 30 + [429]
