"""KEDA's objects: a small schema of our own for the fields we use (no package has one), and the answer they ask for.

The schema follows KEDA's CRDs `scaledobjects.keda.sh` and `triggerauthentications.keda.sh`, v1alpha1, of v2.20; the
whole manifests were once checked against those by hand (docs/deployment.md).
"""

import re
from typing import Any

import jsonschema
import msgspec
import pytest

from ops.queues import QueueStats
from tests.deploy.reading import OVERLAYS, of_kind, overlay

TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
METRICS_API = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "pattern": "^http://console\\.NAMESPACE\\.svc\\.cluster\\.local:8000/v1/queues$"},
        "valueLocation": TEXT,
        "targetValue": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "authMode": {"const": "bearer"},
    },
    "required": ["url", "valueLocation", "targetValue", "authMode"],
    "additionalProperties": False,
}
SCALED_OBJECT = {
    "type": "object",
    "properties": {
        "scaleTargetRef": {
            "type": "object",
            "properties": {"name": TEXT},
            "required": ["name"],
            "additionalProperties": False,
        },
        "minReplicaCount": COUNT,
        "maxReplicaCount": COUNT,
        "pollingInterval": COUNT,
        "fallback": {
            "type": "object",
            "properties": {"failureThreshold": COUNT, "replicas": COUNT},
            "required": ["failureThreshold", "replicas"],
            "additionalProperties": False,
        },
        "advanced": {
            "type": "object",
            "properties": {"horizontalPodAutoscalerConfig": {"type": "object"}},
            "additionalProperties": False,
        },
        "triggers": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "type": {"const": "metrics-api"},
                    "name": TEXT,
                    "metadata": METRICS_API,
                    "authenticationRef": {
                        "type": "object",
                        "properties": {"name": TEXT},
                        "required": ["name"],
                        "additionalProperties": False,
                    },
                },
                "required": ["type", "metadata", "authenticationRef"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["scaleTargetRef", "triggers"],
    "additionalProperties": False,
}
QUERY = re.compile(r'data\.#\(queue=="([a-z0-9-]+)"\)\.(\w+)')
"""The one form of GJSON path that we use: a field of the first entry with this queue."""


@pytest.fixture
def spec() -> Any:
    return of_kind("ScaledObject")["worker"]["spec"]


def test_it_has_the_form_keda_asks_for(spec: Any) -> None:
    jsonschema.validate(spec, SCALED_OBJECT)
    assert spec["scaleTargetRef"]["name"] in of_kind("Deployment")
    assert "replicas" not in of_kind("Deployment")["worker"]["spec"], "a deploy would undo what KEDA decided"


def test_it_asks_for_fields_that_the_console_answers_with(spec: Any) -> None:
    """`/v1/queues` is `{"data": [QueueStats, …]}`."""
    fields = {field.name: field.type for field in msgspec.structs.fields(QueueStats)}
    asked = [QUERY.fullmatch(trigger["metadata"]["valueLocation"]) for trigger in spec["triggers"]]
    assert [match and (match[1], fields[match[2]]) for match in asked] == [("default", int), ("default", int)]


def test_the_key_it_shows_is_there_and_is_the_consoles_way(spec: Any) -> None:
    authentications = of_kind("TriggerAuthentication")
    for trigger in spec["triggers"]:
        parameters = authentications[trigger["authenticationRef"]["name"]]["spec"]["secretTargetRef"]
        assert parameters == [{"parameter": "token", "name": "switchboard-operator-key", "key": "token"}]


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_asks_its_own_console_for_every_trigger(spec: Any, name: str) -> None:
    (patch,) = (each["patch"] for each in overlay(name)["patches"] if each["target"]["kind"] == "ScaledObject")
    paths = re.findall(r"path: (/spec/triggers/\d+/metadata/url)", patch)
    assert len(paths) == len(spec["triggers"])
    assert patch.count(f"http://console.switchboard-{name}.svc.cluster.local:8000/v1/queues") == len(paths)
