"""The Kubernetes manifests: what schemas cannot know. `make deploy-check` asks the schemas; no cluster was asked."""

from typing import Any

import pytest
import yaml

from ops.serve import GRACEFUL_STOP_S
from shared.config import Settings, environment_name
from tests.deploy.reading import KUBERNETES, OVERLAYS, container_of, documents, of_kind, overlay, pod_of, procfile

DEPLOYMENTS = of_kind("Deployment")
WORKLOADS = {**DEPLOYMENTS, **of_kind("Job")}


def test_every_process_of_the_procfile_is_there() -> None:
    assert WORKLOADS.keys() == procfile().keys()
    for name, arguments in procfile().items():
        assert container_of(WORKLOADS[name])["args"] == arguments[:1]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_has_no_rights(name: str) -> None:
    pod, container = pod_of(WORKLOADS[name]), container_of(WORKLOADS[name])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert container["resources"]["limits"].keys() == {"memory"}, "a CPU limit would throttle, not protect"


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_rolling_update_never_falls_below_what_there_was(name: str) -> None:
    strategy = DEPLOYMENTS[name]["spec"]["strategy"]
    assert strategy["type"] == "RollingUpdate"
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_the_grace_period_is_longer_than_what_a_stop_takes() -> None:
    (kustomization,) = documents(KUBERNETES / "base" / "kustomization.yaml")
    literals = dict(each.split("=") for each in kustomization["configMapGenerator"][0]["literals"])
    worker_s = pod_of(DEPLOYMENTS["worker"])["terminationGracePeriodSeconds"]
    assert worker_s >= float(literals["SWITCHBOARD_DRAIN_S"]) + 10
    for name in ("ingress", "console"):
        waits_s = container_of(DEPLOYMENTS[name])["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod_of(DEPLOYMENTS[name])["terminationGracePeriodSeconds"] >= waits_s + GRACEFUL_STOP_S + 10


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_probes_ask_a_named_port(name: str) -> None:
    container = container_of(DEPLOYMENTS[name])
    ports = {port["name"] for port in container["ports"]}
    probes = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} <= ports
    assert probes["readiness"]["path"] == "/health/ready"
    assert {probes["startup"]["path"], probes["liveness"]["path"]} == {"/health/live"}


def test_the_workers_probes_are_where_it_listens() -> None:
    container = container_of(DEPLOYMENTS["worker"])
    assert container["env"] == [{"name": "SWITCHBOARD_METRICS_PORT", "value": "9100"}]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9100}]


def test_each_process_is_given_only_the_secrets_of_its_duty() -> None:
    secrets = {
        name: [source["secretRef"]["name"] for source in container_of(one)["envFrom"] if "secretRef" in source]
        for name, one in WORKLOADS.items()
    }
    assert secrets == {
        "ingress": ["switchboard"],
        "worker": ["switchboard", "switchboard-providers"],
        "delivery": ["switchboard", "switchboard-providers", "switchboard-ops"],
        "console": ["switchboard", "switchboard-ops"],
        "release": ["switchboard", "switchboard-owner"],
    }


def test_the_example_has_every_secret_and_only_settings_that_exist() -> None:
    example = {one["metadata"]["name"]: one["stringData"] for one in documents(KUBERNETES / "secrets.example.yaml")}
    used = {
        source["secretRef"]["name"] for one in WORKLOADS.values() for source in container_of(one)["envFrom"][1:]
    } | {each["name"] for one in of_kind("TriggerAuthentication").values() for each in one["spec"]["secretTargetRef"]}
    assert example.keys() == used
    known = {environment_name(field) for field in Settings.model_fields} | {"token"}
    assert {name for data in example.values() for name in data} <= known


def test_every_setting_that_is_a_secret_is_in_the_example() -> None:
    example = {name for one in documents(KUBERNETES / "secrets.example.yaml") for name in one["stringData"]}
    secrets = {environment_name(name) for name, field in Settings.model_fields.items() if "SecretStr" in repr(field)}
    with_passwords = {
        environment_name(name) for name in Settings.model_fields if name.endswith(("database_url", "redis_url"))
    }
    assert len(secrets) > 5
    assert secrets | with_passwords <= example


def test_services_and_budgets_select_what_exists() -> None:
    selectors = [one["spec"]["selector"] for one in of_kind("Service").values()]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind("PodDisruptionBudget").values()]
    assert {each["app.kubernetes.io/component"] for each in selectors} == DEPLOYMENTS.keys()
    for service in of_kind("Service").values():
        component = service["spec"]["selector"]["app.kubernetes.io/component"]
        target = service["spec"]["ports"][0]["targetPort"]
        assert target in {port["name"] for port in container_of(DEPLOYMENTS[component])["ports"]}


def test_everything_is_closed_unless_a_policy_opens_it() -> None:
    policies = of_kind("NetworkPolicy")
    closed = policies["nothing-by-default"]["spec"]
    assert (closed["podSelector"], closed["policyTypes"]) == ({}, ["Ingress", "Egress"])
    assert "ingress" not in closed
    assert "egress" not in closed
    opened = [one for one in policies.values() if "ingress" in one["spec"]]
    public = [one["metadata"]["name"] for one in opened if any("from" not in rule for rule in one["spec"]["ingress"])]
    assert public == ["ingress-is-public"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_an_environment_of_its_own(name: str) -> None:
    found = overlay(name)
    assert found["namespace"] == f"switchboard-{name}"
    assert found["configMapGenerator"][0]["literals"] == [f"SWITCHBOARD_ENVIRONMENT={name}"]
    assert found["resources"] == ["namespace.yaml", "../../base"]
    (namespace,) = documents(KUBERNETES / "overlays" / name / "namespace.yaml")
    assert namespace["metadata"]["name"] == f"switchboard-{name}"
    other = next(each for each in OVERLAYS if each != name)
    assert other not in (KUBERNETES / "overlays" / name / "kustomization.yaml").read_text().lower()


@pytest.mark.parametrize("name", OVERLAYS)
def test_patches_change_what_exists(name: str) -> None:
    for patch in overlay(name)["patches"]:
        target: Any = of_kind(patch["target"]["kind"])[patch["target"]["name"]]
        for operation in yaml.safe_load(patch["patch"]):
            assert operation["op"] == "replace"
            at = target
            for part in operation["path"].strip("/").split("/"):
                at = at[int(part)] if isinstance(at, list) else at[part]
            assert type(at) is type(operation["value"])
