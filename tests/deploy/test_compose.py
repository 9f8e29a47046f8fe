"""docker-compose.yml: what its schema cannot know. Nothing is started here: there is no Docker engine."""

import re
from typing import Any

import pytest

from ops.stack.valkey import DURABLE
from shared.config import Settings, environment_name
from tests.deploy.reading import REPOSITORY, compose, procfile, seconds

OURS = ["ingress", "worker", "delivery", "console", "release"]
TEXT = (REPOSITORY / "docker-compose.yml").read_text()
SECRET = re.compile(r"PASSWORD|SECRET|KEY$")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


def test_every_process_of_the_procfile_has_a_service(services: dict[str, Any]) -> None:
    for name, arguments in procfile().items():
        assert services[name]["command"][0] == arguments[0], name


@pytest.mark.parametrize("name", OURS)
def test_a_process_is_one_image_without_rights(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["image"].startswith("switchboard:")
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert "no-new-privileges:true" in service["security_opt"]


def test_a_stop_leaves_time_for_the_drain(services: dict[str, Any]) -> None:
    drain_s = Settings.model_fields["drain_s"].default
    assert f"SWITCHBOARD_DRAIN_S:-{drain_s:g}" in TEXT
    assert seconds(services["worker"]["stop_grace_period"]) >= drain_s + 10


def test_workers_can_be_scaled(services: dict[str, Any]) -> None:
    assert {"ports", "container_name", "hostname"} & services["worker"].keys() == set()


@pytest.mark.parametrize("name", ["ingress", "worker", "delivery", "console"])
def test_processes_wait_for_the_release_and_for_healthy_servers(services: dict[str, Any], name: str) -> None:
    conditions = {on: how["condition"] for on, how in services[name]["depends_on"].items()}
    assert conditions == {
        "redis": "service_healthy",
        "postgres": "service_healthy",
        "release": "service_completed_successfully",
    }
    assert {"redis", "postgres", name} <= {each for each in services if "healthcheck" in services[each]}


def test_what_was_accepted_is_on_disk_and_stays(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    given = dict(zip(command[1::2], command[2::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--appendfsync"] == "always"
    assert given["--maxmemory-policy"] == "noeviction"
    assert given["--stream-node-max-bytes"] == DURABLE["stream-node-max-bytes"]
    assert given["--maxmemory"]
    assert given["--requirepass"]
    assert services["redis"]["volumes"] == ["redis:/data"]


def test_only_ingress_is_open_to_the_world(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports.keys() == {"ingress", "console"}
    assert all(port.startswith("127.0.0.1:") for port in ports["console"])


def test_no_secret_has_a_default_and_each_is_in_the_example() -> None:
    example = (REPOSITORY / "deploy" / "compose.env.example").read_text()
    used = re.findall(r"\$\{([A-Z_]+)(:[-?][^}]*)?\}", TEXT)
    secrets = {name for name, _ in used if SECRET.search(name)}
    assert {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "SWITCHBOARD_SECRET"} <= secrets
    for name, default in used:
        if SECRET.search(name):
            assert default.startswith(":?") or default == ":-", f"{name} must not have a default value"
            assert re.search(rf"^#?{name}=", example, re.MULTILINE), name


@pytest.mark.parametrize("name", OURS)
def test_a_process_is_given_only_settings_that_exist(services: dict[str, Any], name: str) -> None:
    known = {environment_name(field) for field in Settings.model_fields}
    assert set(services[name]["environment"]) <= known


OF_THE_FILE = {"host", "port", "redis_url", "database_url", "metrics_port"}
"""The image says the first, the file the others."""
OF_A_DUTY = {
    "owner_database_url": {"release"},
    "ops_database_url": {"delivery", "console"},
    "webhook_secret": {"delivery", "console"},
    "smtp_url": {"delivery", "console"},
    **dict.fromkeys(
        (
            *("openai_api_key", "openai_base_url", "anthropic_api_key", "anthropic_base_url"),
            *("embedding_api_key", "embedding_base_url"),
        ),
        frozenset({"worker", "delivery"}),
    ),
}


@pytest.mark.parametrize("field", sorted(Settings.model_fields.keys() - OF_THE_FILE))
def test_a_setting_in_the_file_beside_reaches_whoever_reads_it(services: dict[str, Any], field: str) -> None:
    """One that is not passed on would do nothing, and say nothing."""
    name = environment_name(field)
    given = {each for each in OURS if name in services[each]["environment"]}
    assert given - {"release"} == OF_A_DUTY.get(field, set(OURS)) - {"release"}
    if field not in {"owner_database_url", "ops_database_url"}:
        values = {services[each]["environment"][name] for each in given}
        assert all(value is None or f"${{{name}:" in value for value in values), "it is passed on"


def test_each_duty_has_its_own_database_login(services: dict[str, Any]) -> None:
    roles = {name: set(re.findall(r"switchboard_(app|ops|owner)", str(services[name]["environment"]))) for name in OURS}
    assert roles == {
        "ingress": {"app"},
        "worker": {"app"},
        "delivery": {"app", "ops"},
        "console": {"app", "ops"},
        "release": {"owner"},
    }
