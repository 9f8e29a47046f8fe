"""Alert rules: each says what to do, about things that exist, and is shown to fire and to stay silent by promtool.

promtool itself runs in `make deploy-check`; the metrics are compared with real processes in tests/telemetry.
"""

import re
from collections.abc import Iterator

import click
import pytest
import typer
import yaml

from ops.cli import app
from shared.config import Settings, environment_name
from tests.deploy.promql import read
from tests.deploy.reading import documents, of_kind
from tests.deploy.watched import ALERTS, PANELS, PROMETHEUS, RULES, TARGET_LABELS, Document, promtool_tests

NO_LABELS = {"SwitchboardQueueUnseen"}
"""`absent()` has no labels to keep."""


def texts(rule: Document) -> str:
    return "\n".join(rule["annotations"].values())


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Switchboard([A-Z][a-z]+)+", name)
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert re.fullmatch(r"[1-9]\d*[sm]", rule["for"])
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert len(rule["annotations"]["summary"]) < 120


@pytest.mark.parametrize("name", sorted(ALERTS.keys() - NO_LABELS))
def test_an_alert_keeps_environments_apart_and_names_labels_that_it_keeps(name: str) -> None:
    query = read(ALERTS[name]["expr"])
    for group in query.groups:
        assert "environment" in group
    for selector in query.selectors:
        assert query.groups or selector.metric.startswith("environment:"), "a raw metric has a label per process"
    named = set(re.findall(r"\$labels\.(\w+)", texts(ALERTS[name])))
    assert named <= query.kept


def cases() -> Iterator[tuple[str, bool, Document]]:
    """(alert, whether it is to fire, the test) of all that promtool is asked."""
    for test in promtool_tests():
        for asked in test.get("alert_rule_test", []):
            yield asked["alertname"], bool(asked["exp_alerts"]), test
        for asked in test.get("promql_expr_test", []):
            match = re.fullmatch(r'ALERTS{alertname="(\w+)",alertstate="firing"}', asked["expr"])
            if match:
                yield match[1], bool(asked["exp_samples"]), test


@pytest.mark.parametrize("name", ALERTS)
def test_promtool_sees_the_alert_fire_and_stay_silent(name: str) -> None:
    asked = [(fires, test) for alert, fires, test in cases() if alert == name]
    assert {fires for fires, _ in asked} == {True, False}
    series = " ".join(each["series"] for _, test in asked for each in test["input_series"])
    assert 'environment="staging"' in series, "one that is just well enough"


def test_promtool_is_asked_about_alerts_that_exist_only() -> None:
    assert {alert for alert, _, _ in cases()} == ALERTS.keys()


def test_series_in_promtools_tests_are_ones_that_the_rules_read() -> None:
    selectors = [selector for rule in RULES for selector in read(rule["expr"]).selectors]
    read_by_rules = {selector.metric for selector in selectors}
    given = {read(each["series"]).selectors[0].metric for test in promtool_tests() for each in test["input_series"]}
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    assert read_by_rules == given | recorded


@pytest.mark.parametrize(
    ("alert", "setting", "share"),
    [("SwitchboardQueueFills", "max_queue_depth", 0.8), ("SwitchboardJobsSoonExpire", "ttl_s", 0.5)],
)
def test_a_threshold_follows_the_settings_default(alert: str, setting: str, share: float) -> None:
    threshold = float(ALERTS[alert]["expr"].rpartition(">")[2])
    assert threshold == share * Settings.model_fields[setting].default


def test_settings_in_the_texts_exist() -> None:
    known = {environment_name(field) for field in Settings.model_fields}
    named = {name for rule in ALERTS.values() for name in re.findall(r"SWITCHBOARD_\w+", texts(rule))}
    assert named
    assert named <= known


def commands() -> list[list[str]]:
    found = {line for rule in ALERTS.values() for line in re.findall(r"`switchboard ([^`]+)`", texts(rule))}
    return [re.sub(r"{{[^}]*}}", "NAME", line).split() for line in sorted(found)]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_in_the_texts_exist(words: list[str]) -> None:
    command: object = typer.main.get_command(app)
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}  # type: ignore[attr-defined]
    assert {word for word in words if word.startswith("--")} <= options


def test_metrics_in_the_texts_are_on_the_dashboard() -> None:
    shown = {selector.metric for panel in PANELS for t in panel["targets"] for selector in read(t["expr"]).selectors}
    named = {name for rule in ALERTS.values() for name in re.findall(r"switchboard_\w+", texts(rule))}
    assert named <= shown


def test_prometheus_asks_each_kind_of_process_under_the_name_that_alerts_and_dashboard_know() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs.keys() == {"switchboard-ingress", "switchboard-console", "switchboard-worker"}
    assert all("credentials_file" in job["authorization"] for job in jobs.values())
    (discovery,) = jobs["switchboard-worker"]["http_sd_configs"]
    assert discovery["url"].endswith("/v1/metrics/targets")
    assert discovery["authorization"]["type"] == "Bearer", "the default is none here"
    assert config["rule_files"] == ["alerts.yml"]


def test_the_pod_monitor_finds_the_pods_and_ports_of_the_manifests() -> None:
    (monitor,) = documents(PROMETHEUS / "podmonitor.yaml")
    pods = of_kind("Deployment")
    open_ports = {
        port["name"]
        for pod in pods.values()
        for container in pod["spec"]["template"]["spec"]["containers"]
        for port in container.get("ports", [])
    }
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} == open_ports
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert {rule["targetLabel"] for rule in endpoint["relabelings"]} == TARGET_LABELS
    overlays = [document for path in (PROMETHEUS.parent / "kubernetes/overlays").iterdir()
                for document in documents(path / "namespace.yaml")]  # fmt: skip
    assert set(monitor["spec"]["namespaceSelector"]["matchNames"]) == {each["metadata"]["name"] for each in overlays}
