"""`switchboard tenants` and `switchboard keys` as processes, their output in a pipe."""

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from ops.tenants.terminal import patch_of
from shared.config import Settings
from shared.errors import InvalidRequest
from tests.stack.dev_process import REPOSITORY
from tests.turn.deployment import environment_of

Run = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]


@pytest.fixture
def switchboard(settings: Settings) -> Run:
    async def run(*arguments: str, **changes: str | None) -> "subprocess.CompletedProcess[str]":
        env = {**environment_of(settings), **changes}
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "ops", *arguments],
            cwd=REPOSITORY,
            env={name: value for name, value in env.items() if value is not None},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


async def test_a_tenants_life(switchboard: Run) -> None:
    created = await switchboard("tenants", "create", "acme", "plan=pro", "--name", "Acme Ltd", "--json")
    assert created.returncode == 0, created.stderr
    assert json.loads(created.stdout)["settings"] == {"plan": "pro"}

    changed = await switchboard(
        *("tenants", "set", "acme", "rates.user_per_min=50", "budgets.day_usd=5", "greeting=Hello there", "--json")
    )
    assert changed.returncode == 0, changed.stderr
    assert json.loads(changed.stdout)["settings"] == {
        "plan": "pro",
        "rates": {"user_per_min": 50},
        "budgets": {"day_usd": "5"},
        "greeting": "Hello there",
    }
    stale = await switchboard("tenants", "set", "acme", "greeting=null", "--version", "1")
    assert (stale.returncode, stale.stdout) == (1, "")
    assert "changed meanwhile" in stale.stderr

    assert (await switchboard("tenants", "disable", "acme")).returncode == 0
    listed = await switchboard("tenants", "list")
    assert listed.stdout.startswith("acme\tAcme Ltd\tpro\t2\t")
    assert "disabled" in listed.stdout
    assert (await switchboard("tenants", "enable", "acme")).returncode == 0
    shown = await switchboard("tenants", "show", "acme")
    for part in ("in force", '"tenant_per_min": 300', "changed by cli:", "disabled by cli:"):
        assert part in shown.stdout


async def test_a_keys_life(switchboard: Run) -> None:
    await switchboard("tenants", "create", "acme")
    made = await switchboard("keys", "create", "acme", "--label", "shop", "--scope", "admin", "--expires-in", "90d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    key_id = hashlib.sha256(key.encode()).hexdigest()[:12]
    assert key.startswith("sk-sb-")
    assert key_id in made.stderr
    assert key not in made.stderr
    listed = await switchboard("keys", "list", "acme")
    assert listed.stdout.startswith(f"{key_id}\tacme\tshop\tadmin\t")
    revoked = await switchboard("keys", "revoke", key)  # the key itself, as somebody may have found it
    assert "revoked" in revoked.stdout
    assert key not in revoked.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tenants", "set", "acme", "rates.user_per_min=-1", "plan=gold"), ("settings/rates/user_per_min", "/plan")),
        (("tenants", "set", "acme", "rates"), ("setting=value",)),
        (("tenants", "set", "acme", "--patch", "[1]"), ("JSON object",)),
        (("tenants", "set", "nobody", "plan=pro"), ("no such tenant",)),
        (("tenants", "create", "Not An Id"), ("id: ",)),
        (("keys", "create", "nobody"), ("no such tenant",)),
        (("keys", "create", "acme", "--scope", "root"), ("scopes/0",)),
        (("keys", "revoke", "not-a-key"), ("key's id",)),
        (("keys", "revoke", "000000000000"), ("no such key",)),
    ],
)
async def test_what_is_wrong_is_said_in_words(
    switchboard: Run, arguments: tuple[str, ...], said: tuple[str, ...], with_keys: None
) -> None:
    refused = await switchboard(*arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Traceback" not in refused.stderr
    for words in said:
        assert words in refused.stderr


async def test_without_the_operators_role_nothing_is_changed(switchboard: Run, with_keys: None) -> None:
    refused = await switchboard("tenants", "set", "acme", "plan=pro", SWITCHBOARD_OPS_DATABASE_URL=None)
    assert refused.returncode == 1
    assert "SWITCHBOARD_OPS_DATABASE_URL" in refused.stderr
    shown = await switchboard("tenants", "show", "acme", SWITCHBOARD_OPS_DATABASE_URL=None)
    assert shown.returncode == 0, shown.stderr


def test_assignments_are_laid_over_a_patch_and_keep_what_is_to_go() -> None:
    assignments = [
        "rates.user_per_min=5",
        "greeting=null",
        'cors_origins=["https://a.example"]',
        "budgets.day_usd=1.50",
    ]
    assert patch_of(assignments, '{"rates": {"tenant_per_min": null}, "plan": "pro"}') == {
        "plan": "pro",
        "rates": {"tenant_per_min": None, "user_per_min": 5},
        "greeting": None,
        "cors_origins": ["https://a.example"],
        "budgets": {"day_usd": "1.50"},
    }
    with pytest.raises(InvalidRequest):
        patch_of(["a..b=1"], None)
