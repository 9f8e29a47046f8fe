"""Channels over HTTP and by the command line: made, shown, changed, rotated, removed; and never a credential shown."""

import asyncio
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from redis.asyncio import Redis

from ops.channels.books import ChannelBooks, NewChannel
from ops.console.app import create_console
from shared import keys
from shared.config import Settings
from shared.sealing import Sealer
from tests.channels.conftest import SEALING_KEY, Line
from tests.channels.providers import PROVIDERS
from tests.channels.providers import WhatsApp as Meta
from tests.channels.test_flows import private
from tests.conftest import Database, Eventually
from tests.ingress.harness import Ageing, Running
from tests.stack.dev_process import REPOSITORY
from tests.turn.deployment import environment_of

META = Meta()
NEW = {"kind": "whatsapp", "agent": "support", "settings": META.settings, "credentials": META.credentials}
SECRETS = ("meta-secret", "let me in", "EAAG-token")


@pytest.fixture
async def console(settings: Settings) -> AsyncIterator[Any]:
    app = create_console(settings)

    def client(key: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(
            transport=transport, base_url="http://console", headers={"authorization": f"Bearer {key}"}
        )

    async with app.router.lifespan_context(app):
        yield client


@pytest.fixture
async def admin(console: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Of the tenant `a`."""
    async with console("sk-admin-of-a") as client:
        yield client


async def made(admin: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    response = await admin.post("/v1/channels", json={**NEW, **changes})
    assert response.status_code == 201, response.text
    resource: dict[str, Any] = response.json()
    return resource


async def test_a_channels_life(admin: httpx.AsyncClient, running: Running, queued) -> None:
    channel = await made(admin, name="Shop", domain="shop")
    path = f"/v1/channels/{channel['id']}"
    assert channel["webhook"] == f"{path}/webhook"
    assert (channel["tenant"], channel["version"], channel["domain"]) == ("a", 1, "shop")
    assert channel["credentials"] == {"app_secrets": 1, "verify_token": 1, "access_token": 1}
    assert (await admin.get(path)).json() == channel
    assert (await admin.get("/v1/channels")).json()["data"] == [channel]

    async with running.client(None) as anybody:
        line = Line(META, channel["id"], anybody)
        assert (await line.deliver(META.message("hello"))).status_code == 200
        changed = await admin.patch(path, json={"agent": "sales", "settings": {"answer_reactions": True}, "version": 1})
        assert (changed.status_code, changed.json()["version"]) == (200, 2)
        assert changed.json()["settings"] == {**META.settings, "answer_reactions": True}
        assert (await admin.patch(path, json={"agent": "support", "version": 1})).status_code == 409
        assert (await admin.delete(path)).status_code == 200
        assert (await admin.get(path)).status_code == 404
    assert len(await queued()) == 1


async def test_no_credential_is_in_any_answer_log_or_table(
    admin: httpx.AsyncClient, whatsapp: Line, with_keys: Database, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    channel = await made(admin)
    path = f"/v1/channels/{channel['id']}"
    said = [await admin.get(path), await admin.get("/v1/channels"), await admin.get("/v1/tenants/a/changes")]
    said.append(await admin.post(f"{path}/rotate", json={"credentials": {"app_secrets": "another-secret"}}))
    said.append(await admin.post("/v1/channels", json={**NEW, "credentials": {**META.credentials, "app_secrets": 7}}))
    said.append(await admin.post("/v1/channels", json={**NEW, "agent": "", "credentials": META.credentials}))
    await whatsapp.deliver(META.message("hello"))
    cached = await redis.get(keys.channel(whatsapp.channel_id))
    connection = await asyncpg.connect(with_keys.superuser)
    tables = [str(await connection.fetch(f"SELECT * FROM {table}")) for table in ("channels", "tenant_changes")]  # noqa: S608
    await connection.close()
    everything = [*(response.text for response in said), *tables, str(cached), str(capsys.readouterr())]
    for secret in (*SECRETS, "another-secret"):
        assert [text for text in everything if secret in text] == []
    assert cached


async def test_every_fault_is_told_at_once_and_nothing_is_made(admin: httpx.AsyncClient) -> None:
    body = {
        "kind": "whatsapp",
        "agent": "nobody",
        "settings": {"phone_numer_id": "1", "graph_version": 26},
        "credentials": {"app_secrets": [], "flow_keys": ["no key"], "verify_token": " "},
    }
    response = await admin.post("/v1/channels", json=body)
    assert response.status_code == 422
    faults = {fault["field"]: fault["message"] for fault in response.json()["errors"]}
    assert set(faults) == {
        "agent",
        "settings/phone_numer_id",
        "settings/phone_number_id",
        "settings/graph_version",
        "credentials/app_secrets",
        "credentials/flow_keys",
        "credentials/verify_token",
    }
    assert (await admin.get("/v1/channels")).json()["data"] == []


@pytest.mark.parametrize("kind", ["hologram", "", "../x"])
async def test_an_unknown_kind_is_refused(admin: httpx.AsyncClient, kind: str) -> None:
    assert (await admin.post("/v1/channels", json={**NEW, "kind": kind})).status_code == 422


async def test_a_tenant_reaches_its_own_channels_only(
    console: Any, admin: httpx.AsyncClient, books: ChannelBooks
) -> None:
    channel = await made(admin)
    other = await books.create("b", _new(), "tests")
    path = f"/v1/channels/{other.id}"
    calls = [
        await admin.get(path),
        await admin.patch(path, json={"agent": "sales"}),
        await admin.delete(path),
        await admin.post(f"{path}/rotate", json={"credentials": {"verify_token": "mine"}}),
        await admin.get(f"{path}/kept"),
    ]
    assert [call.status_code for call in calls] == [404] * 5
    assert (await admin.post("/v1/channels", json={**NEW, "tenant": "b"})).status_code == 403
    assert (await admin.get("/v1/channels", params={"tenant": "b"})).status_code == 403
    assert [row["id"] for row in (await admin.get("/v1/channels")).json()["data"]] == [channel["id"]]
    assert (await books.find("b", other.id)).version == 1
    async with console("sk-tenant-a") as chat:
        assert (await chat.get("/v1/channels")).status_code == 403


def _new() -> NewChannel:
    return NewChannel("whatsapp", "x", "support", None, None, META.settings, META.credentials)


async def test_secrets_rotate_with_both_valid_for_a_while(
    admin: httpx.AsyncClient, whatsapp: Line, eventually: Eventually
) -> None:
    path = f"/v1/channels/{whatsapp.channel_id}"

    async def passes(secret: str) -> bool:
        response = await whatsapp.deliver(META.message("hello"), secret=secret)
        assert response.status_code in {200, 403}
        return response.status_code == 200

    rotated = await admin.post(f"{path}/rotate", json={"credentials": {"app_secrets": "second"}})
    assert rotated.json()["credentials"]["app_secrets"] == 2
    await eventually(lambda: passes("second"))
    assert await passes("meta-secret")
    await admin.post(f"{path}/rotate", json={"credentials": {"app_secrets": "third"}, "keep": 0})

    async def only_the_third() -> bool:
        return await passes("third") and not await passes("second") and not await passes("meta-secret")

    await eventually(only_the_third)


async def test_a_removed_channel_is_refused_within_a_second_everywhere(
    admin: httpx.AsyncClient, whatsapp: Line, settings: Settings, ageing: Ageing
) -> None:
    assert (await whatsapp.deliver(META.message("hello"))).status_code == 200
    await admin.delete(f"/v1/channels/{whatsapp.channel_id}")
    await ageing.go_by(settings.key_cache_ttl_s)
    assert (await whatsapp.deliver(META.message("hello"))).status_code == 404


async def test_a_disabled_tenants_channels_are_none(
    whatsapp: Line, with_keys: Database, settings: Settings, ageing: Ageing
) -> None:
    assert (await whatsapp.deliver(META.message("hello"))).status_code == 200
    connection = await asyncpg.connect(with_keys.ops)
    await connection.execute("UPDATE tenants SET disabled_at = now() WHERE tenant_id = 'a'")
    await connection.close()
    await ageing.go_by(settings.key_cache_ttl_s)
    assert (await whatsapp.deliver(META.message("hello"))).status_code == 404


async def test_flow_keys_must_be_private_rsa_keys(admin: httpx.AsyncClient) -> None:
    key = private(rsa.generate_private_key(65537, 2048))
    channel = await made(admin, credentials={**META.credentials, "flow_keys": [key]})
    assert channel["credentials"]["flow_keys"] == 1


async def test_without_a_key_for_credentials_none_are_taken(
    settings: Settings, admin: httpx.AsyncClient, books: ChannelBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "_sealer", Sealer(""))
    with pytest.raises(Exception, match="SWITCHBOARD_CREDENTIALS_KEY is not set"):
        await books.create("a", _new(), "tests")


async def test_all_credentials_are_sealed_anew_under_the_first_key(
    books: ChannelBooks, whatsapp: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await books.create("b", _new(), "tests")
    newer = b64encode(b"n" * 32).decode()
    monkeypatch.setattr(books, "_sealer", Sealer(f"{newer},{SEALING_KEY}"))
    assert await books.reseal("tests") == (2, [])
    assert await books.reseal("tests") == (0, [])
    monkeypatch.setattr(books, "_sealer", Sealer(newer))
    assert (await books.rotate("a", whatsapp.channel_id, {"verify_token": "y"}, 1, "tests")).version == 3
    monkeypatch.setattr(books, "_sealer", Sealer(b64encode(b"o" * 32).decode()))
    assert await books.reseal("tests") == (0, sorted([whatsapp.channel_id, lost.id]))


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def switchboard(settings: Settings) -> Any:
    async def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "ops", "channels", *arguments],
            cwd=REPOSITORY,
            env=environment_of(settings),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


async def test_the_command_line_does_the_same(switchboard: Any, tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps(PROVIDERS["slack"].credentials))
    created = await switchboard(
        *("create", "a", "slack", "app_id=A1", "--credentials", str(file), "--agent", "support", "--json")
    )
    assert created.returncode == 0, created.stderr
    channel = json.loads(created.stdout)
    rotated = await switchboard("rotate", channel["id"], "--credentials", "-", stdin='{"signing_secrets": "second"}')
    assert "signing_secrets×2" in rotated.stdout
    assert "second" not in rotated.stdout + rotated.stderr
    listed = await switchboard("list", "--tenant", "a")
    assert listed.stdout.startswith(f"{channel['id']}\ta\tslack\tslack\tsupport\t2\t")
    assert (await switchboard("remove", channel["id"])).returncode == 0
    gone = await switchboard("show", channel["id"])
    assert (gone.returncode, gone.stderr) == (1, "switchboard: There is no such channel.\n")


@pytest.mark.parametrize("stdin", ["", '"meta-secret"'])
async def test_credentials_that_cannot_be_read_are_not_repeated(switchboard: Any, stdin: str) -> None:
    refused = await switchboard("create", "a", "slack", "--credentials", "-", "--agent", "support", stdin=stdin)
    assert refused.returncode == 1
    assert refused.stderr == "--credentials: must hold a JSON object\n"
