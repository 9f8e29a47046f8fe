"""The Grafana dashboard: whole, explained, and filtered by its variables.

That its metrics exist is shown in tests/telemetry/test_watched.py.
"""

import itertools
import re

import pytest
import yaml

from tests.deploy.promql import read
from tests.deploy.watched import DASHBOARD, GRAFANA, PANELS, PROMETHEUS, Document, other_expressions, panel_expressions

TITLES = [panel["title"] for panel in PANELS]
BUILT_IN = {"__rate_interval"}


@pytest.mark.parametrize("panel", PANELS, ids=TITLES)
def test_a_panel_says_what_it_shows_in_which_unit_and_from_where(panel: Document) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source
    assert panel["targets"]
    assert all(target["datasource"] == source for target in panel["targets"])
    names = [target["refId"] for target in panel["targets"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("where", "expression"), list(panel_expressions()))
def test_a_panels_query_obeys_the_choice_of_environment(where: str, expression: str) -> None:
    assert read(expression).selectors, where
    for selector in read(expression).selectors:
        assert ("environment", "=~", "$environment") in selector.matchers, selector


@pytest.mark.parametrize("panel", PANELS, ids=TITLES)
def test_a_legend_names_labels_that_the_query_keeps(panel: Document) -> None:
    for target in panel["targets"]:
        named = set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
        assert named <= read(target["expr"]).kept


def test_only_variables_of_the_dashboard_are_used_and_all_of_them() -> None:
    texts = [expression for _, expression in [*panel_expressions(), *other_expressions()]]
    used = {name for text in texts for name in re.findall(r"\$(\w+)", text)} | {"datasource"}
    assert used - BUILT_IN == {variable["name"] for variable in DASHBOARD["templating"]["list"]}


def test_a_variable_set_to_all_matches_series_without_the_label_too() -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            assert (variable["includeAll"], variable["allValue"]) == (True, ".*"), variable["name"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_topic_has_its_row() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Traffic",
        "Queue",
        "Workers",
        "Models and money",
        "Errors",
        "Processes",
        "Providers",
        "Deliveries",
        "Response cache",
        "Embeddings",
        "Memory",
    ]


def test_the_dashboard_can_be_provisioned_into_any_grafana() -> None:
    assert DASHBOARD["uid"] == "switchboard"
    assert DASHBOARD["schemaVersion"] >= 39
    assert "id" not in DASHBOARD, "an id is of one Grafana's database"
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/switchboard.yml").read_text())["datasources"]
    scrape = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == scrape, "$__rate_interval is made of it"
