"""Dashboard, alert rules and promtool's tests as data."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.deploy.promql import Query, read
from tests.deploy.reading import REPOSITORY

PROMETHEUS = REPOSITORY / "deploy" / "prometheus"
GRAFANA = REPOSITORY / "deploy" / "grafana"
TARGET_LABELS = frozenset({"environment", "job", "instance"})
"""What prometheus.yml and podmonitor.yaml give every series."""

Document = dict[str, Any]

DASHBOARD: Document = json.loads((GRAFANA / "switchboard.json").read_text())
PANELS: list[Document] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES: list[Document] = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS: dict[str, Document] = {rule["alert"]: rule for rule in RULES if "alert" in rule}


def promtool_tests() -> Iterator[Document]:
    for path in sorted((PROMETHEUS / "tests").glob("*.yml")):
        yield from yaml.safe_load(path.read_text())["tests"]


def panel_expressions() -> Iterator[tuple[str, str]]:
    """(title of the panel, PromQL with Grafana's variables)."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def other_expressions() -> Iterator[tuple[str, str]]:
    """Of the dashboard's variables and annotations."""
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector, _, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
            yield f"${variable['name']}", f"max by ({label}) ({selector})"
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def queries() -> dict[str, Query]:
    """Everything that reads metrics: the rules and the dashboard."""
    of_rules = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES]
    found = [*of_rules, *panel_expressions(), *other_expressions()]
    return {f"{where}: {expression}": read(expression) for where, expression in found}
