"""Broken settings: every fault at once, with its name, its value, what is allowed and an example."""

import base64
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette

from ops.serve import serve
from shared.channels.registry import load as load_adapters
from shared.config import Settings, environment_name, unknown_variables
from shared.errors import ConfigError
from shared.setting_types import CHANNEL_KINDS
from tests.stack.dev_process import REPOSITORY, clean_environment
from workers.embeddings.catalog import DIMENSIONS, read_name

SECRET = base64.b64encode(b"thirty-two bytes, as a key needs").decode()
CANARY = "canary-5f1c"


def faults_of(monkeypatch: pytest.MonkeyPatch, **given: str) -> str:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        Settings.read()
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "x", "PORT='x': must be a whole number from 1 to 65535, for example PORT=8000"),
        ("PORT", "65536", "PORT='65536': must be a whole number from 1 to 65535, for example PORT=8000"),
        (
            "SWITCHBOARD_ENVIRONMENT",
            "prod",
            "SWITCHBOARD_ENVIRONMENT='prod': must be development, staging or production, "
            "for example SWITCHBOARD_ENVIRONMENT=development",
        ),
        (
            "SWITCHBOARD_TTL_S",
            "0",
            "SWITCHBOARD_TTL_S='0': must be a whole number from 1 to 31622400, for example SWITCHBOARD_TTL_S=600",
        ),
        (
            "SWITCHBOARD_DRAIN_S",
            "-1",
            "SWITCHBOARD_DRAIN_S='-1': must be a number from 0 to 86400, for example SWITCHBOARD_DRAIN_S=20.0",
        ),
        (
            "SWITCHBOARD_LEASE_S",
            "inf",
            "SWITCHBOARD_LEASE_S='inf': must be a number from 0.1 to 3600, for example SWITCHBOARD_LEASE_S=4.0",
        ),
        (
            "SWITCHBOARD_MODEL_TIMEOUT_S",
            "1e300",
            "SWITCHBOARD_MODEL_TIMEOUT_S='1e300': must be a number greater than 0, at most 86400, "
            "for example SWITCHBOARD_MODEL_TIMEOUT_S=120.0",
        ),
        (
            "SWITCHBOARD_DELIVERY_RETENTION_DAYS",
            "99999999999",
            "SWITCHBOARD_DELIVERY_RETENTION_DAYS='99999999999': must be a whole number from 1 to 36500, "
            "for example SWITCHBOARD_DELIVERY_RETENTION_DAYS=30",
        ),
        (
            "SWITCHBOARD_MEMORY_WRITER",
            "maybe",
            "SWITCHBOARD_MEMORY_WRITER='maybe': must be true or false, for example SWITCHBOARD_MEMORY_WRITER=true",
        ),
        (
            "SWITCHBOARD_MEMORY_MODELS",
            "opnai:gpt-5.4-nano",
            "SWITCHBOARD_MEMORY_MODELS='opnai:gpt-5.4-nano': must be openai:<model> or anthropic:<model>, several "
            "with commas, the best first, for example "
            "SWITCHBOARD_MEMORY_MODELS=openai:gpt-5.4-nano,anthropic:claude-haiku-4-5",
        ),
        (
            "SWITCHBOARD_EMBEDDING_MODEL",
            "openai:bge-m3",
            "SWITCHBOARD_EMBEDDING_MODEL='openai:bge-m3': must be none, local:all-minilm-l6-v2, or "
            "openai:<model>@<dimensions> (OpenAI's own need not say them), "
            "for example SWITCHBOARD_EMBEDDING_MODEL=openai:text-embedding-3-small",
        ),
        (
            "SWITCHBOARD_CHANNEL_URLS",
            "watsapp=https://x.example",
            "SWITCHBOARD_CHANNEL_URLS=<hidden>: must be kinds of channels (slack, telegram, twilio, whatsapp), "
            "each once, with their addresses, with commas between them, "
            "for example SWITCHBOARD_CHANNEL_URLS=whatsapp=http://127.0.0.1:8002/messengers/whatsapp",
        ),
        (
            "SENTRY_DSN",
            "https://sentry.example/2",
            "SENTRY_DSN=<hidden>: must be Sentry's address of a project, "
            "for example SENTRY_DSN=https://key@o1.ingest.sentry.io/2",
        ),
        (
            "OPENAI_API_KEY",
            "sk-pasted\n",
            "OPENAI_API_KEY=<hidden>: must be a key without spaces, line ends or letters beyond ASCII: it is sent in a "
            "header, for example OPENAI_API_KEY=sk-0123456789abcdef",
        ),
        (
            "SWITCHBOARD_SMTP_URL",
            "smtp://mail.example.org?startls=false",
            "SWITCHBOARD_SMTP_URL=smtp://<hidden>: must be an address "
            "smtp://[user:password@]host[:port][?starttls=true|false], or smtps://…, "
            "for example SWITCHBOARD_SMTP_URL=smtp://user:password@mail.example.org:587",
        ),
        (
            "REDIS_URL",
            "redis://127.0.0.1:6379/production",
            "REDIS_URL=redis://<hidden>: must be an address redis://[user:password@]host:port/database, or one of "
            "rediss:// or unix://, for example REDIS_URL=redis://127.0.0.1:6379/0",
        ),
        (
            "SWITCHBOARD_QUEUE",
            "A b",
            "SWITCHBOARD_QUEUE='A b': must be at most 63 of a-z, 0-9 and -, a letter first, "
            "for example SWITCHBOARD_QUEUE=default",
        ),
        (
            "SWITCHBOARD_GLOBAL_DAY_USD",
            "-1",
            "SWITCHBOARD_GLOBAL_DAY_USD='-1': must be US dollars as a decimal number with at most 9 decimals, or none, "
            "for example SWITCHBOARD_GLOBAL_DAY_USD=50",
        ),
        (
            "SWITCHBOARD_GLOBAL_MONTH_USD",
            "1e3",
            "SWITCHBOARD_GLOBAL_MONTH_USD='1e3': must be US dollars as a decimal number with at most 9 decimals, "
            "or none, for example SWITCHBOARD_GLOBAL_MONTH_USD=none",
        ),
        (
            "SWITCHBOARD_TRUSTED_PROXIES",
            "10.0.0.1/8",
            "SWITCHBOARD_TRUSTED_PROXIES='10.0.0.1/8': must be IP addresses or networks with commas between them, "
            "for example SWITCHBOARD_TRUSTED_PROXIES=10.0.0.0/8,192.0.2.7",
        ),
        (
            "SWITCHBOARD_RETRY_BASE_S",
            "50",
            "SWITCHBOARD_RETRY_BASE_S='50.0': must be at most SWITCHBOARD_RETRY_CAP_S=30.0, "
            "for example SWITCHBOARD_RETRY_BASE_S=30.0",
        ),
        (
            "SWITCHBOARD_OPENAI_WAIT_MAX_S",
            "300",
            "SWITCHBOARD_OPENAI_WAIT_MAX_S='300': must be at most a third of SWITCHBOARD_SDK_RETRY_TTL_S=600, "
            "for example SWITCHBOARD_OPENAI_WAIT_MAX_S=200",
        ),
        (
            "OPENAI_BASE_URL",
            "localhost:8002",
            "OPENAI_BASE_URL=<hidden>: must be an address http://… or https://…, "
            "for example OPENAI_BASE_URL=http://127.0.0.1:8002/v1",
        ),
    ],
)
def test_a_fault_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str) -> None:
    assert faults_of(monkeypatch, **{name: value}) == sentence


GARBAGE = "a\nb"
NAMES = {environment_name(field) for field in Settings.model_fields} - {"SWITCHBOARD_ENVIRONMENT"}


def test_every_setting_can_be_wrong_and_all_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In staging, where secrets have a length. Whoever then sets each as its example says has mended it."""
    for name in NAMES:
        monkeypatch.setenv(name, GARBAGE)
    monkeypatch.setenv("SWITCHBOARD_DEGRADED_REPLY", "x" * 2_001)
    monkeypatch.setenv("SWITCHBOARD_ENVIRONMENT", "staging")
    _, faults = Settings.examine()
    assert sorted(fault.name for fault in faults) == sorted(NAMES)
    assert {fault.name for fault in faults if not fault.allowed or fault.example == "…"} == set()
    assert {fault.name for fault in faults if fault.allowed.startswith("text")} == set()
    for fault in faults:
        monkeypatch.setenv(fault.name, re.sub(r"\$\(openssl rand -(hex|base64) 32\)", SECRET, fault.example))
    assert Settings.examine()[1] == []


def test_kinds_of_channels_are_those_that_there_are() -> None:
    assert tuple(load_adapters()) == CHANNEL_KINDS


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_model_whose_dimensions_are_known_need_not_say_them(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SWITCHBOARD_EMBEDDING_MODEL", f"openai:{name}")
    assert read_name(Settings.read().embedding_model).dimensions == DIMENSIONS[name]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"SWITCHBOARD_DELIVERY_ALLOW_PRIVATE": "true"},
            "SWITCHBOARD_DELIVERY_ALLOW_PRIVATE='true': must be false in production: callers would reach the private "
            "network through their callback URLs, for example SWITCHBOARD_DELIVERY_ALLOW_PRIVATE=false",
        ),
        (
            {"SWITCHBOARD_WEBHOOK_SECRET": CANARY},
            "SWITCHBOARD_WEBHOOK_SECRET=<hidden>: must be empty, or at least 16 characters outside development, "
            "for example SWITCHBOARD_WEBHOOK_SECRET=$(openssl rand -hex 32)",
        ),
    ],
)
def test_what_development_may_production_may_not(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], sentence: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings.examine()[1] == []
    assert faults_of(monkeypatch, SWITCHBOARD_ENVIRONMENT="production", SWITCHBOARD_SECRET="x" * 16) == sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", f"http://:{CANARY}@host"),
        ("REDIS_URL", f"redis://:{CANARY}@host:port/0"),
        ("DATABASE_URL", f"mysql://a:{CANARY}@host/x"),
        ("DATABASE_URL", f"postgresql://a:{CANARY}@host:99999/x"),
        ("SWITCHBOARD_OWNER_DATABASE_URL", CANARY),
        ("ANTHROPIC_BASE_URL", f"ftp://{CANARY}@host"),
    ],
)
def test_an_address_is_named_without_what_it_holds(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    said = faults_of(monkeypatch, **{name: value})
    assert said.startswith(f"{name}=")
    assert CANARY not in said


def test_a_short_secret_is_refused_outside_development_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said = faults_of(monkeypatch, SWITCHBOARD_ENVIRONMENT="staging", SWITCHBOARD_SECRET=CANARY)
    assert said.startswith("SWITCHBOARD_SECRET=<hidden>: must be at least 16 characters outside development")
    monkeypatch.setenv("SWITCHBOARD_ENVIRONMENT", "development")
    assert Settings.read().secret.get_secret_value() == CANARY


def test_every_fault_is_said_at_once_those_between_settings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"PORT": "x", "SWITCHBOARD_TTL_S": "99999", "SWITCHBOARD_ENVIRONMENT": "production", "REDIS_URL": "y"}
    lines = faults_of(monkeypatch, **given).splitlines()
    assert lines[0] == "4 settings are wrong:"
    assert {line.split("=")[0].strip() for line in lines[1:]} == {
        "PORT",
        "SWITCHBOARD_TTL_S",
        "SWITCHBOARD_SECRET",
        "REDIS_URL",
    }


def test_what_is_wrong_has_its_default_for_those_who_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_TTL_S", "x")
    monkeypatch.setenv("SWITCHBOARD_MAX_TOKENS", "7")
    settings, faults = Settings.examine({"port": 0})
    assert (settings.ttl_s, settings.port, settings.max_tokens) == (600, 8000, 7)
    assert sorted(fault.name for fault in faults) == ["PORT", "SWITCHBOARD_TTL_S"]


@pytest.mark.parametrize("value", ["postgresql://a@one:5432,two:5433/x", "postgresql:///x?host=/run/postgresql"])
def test_addresses_that_only_the_driver_understands_pass(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DATABASE_URL", value)
    assert Settings.read().database_url == value


def test_an_unknown_variable_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_WORKER_CONCURENCY", "3")
    monkeypatch.setenv("SWITCHBOARD_ZZZ", "3")
    monkeypatch.setenv("SWITCHBOARD_MAX_TOKENS", "7")
    assert unknown_variables() == [
        "SWITCHBOARD_WORKER_CONCURENCY is not a setting and does nothing; did you mean SWITCHBOARD_WORKER_CONCURRENCY?",
        "SWITCHBOARD_ZZZ is not a setting and does nothing",
    ]


@pytest.mark.parametrize("command", ["dev", "ingress", "worker", "delivery", "console", "migrate"])
def test_no_process_starts_on_a_broken_setting(tmp_path: Path, command: str) -> None:
    wrong = {"SWITCHBOARD_LEASE_S": "soon", "PORT": "0", "SWITCHBOARD_LEASES": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "ops", command, *(["--data", str(tmp_path / "data")] if command == "dev" else [])],
        cwd=REPOSITORY,
        env=clean_environment(tmp_path) | wrong,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("switchboard: 2 settings are wrong:\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "203.0.113.7"])
def test_an_address_that_cannot_be_listened_on_is_named_before_anything_starts(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings.read({"host": host, "PORT": taken.getsockname()[1]})
        with pytest.raises(ConfigError) as raised:
            serve(Starlette(), settings)
    assert str(raised.value).startswith(
        f"SWITCHBOARD_HOST={host} PORT={settings.port}: must be an address of this machine"
    )
