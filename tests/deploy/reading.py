"""The deploy files as data, and what they must agree on."""

import re
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parent.parent.parent
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
OVERLAYS = ("staging", "production")

Document = dict[str, Any]


def procfile() -> dict[str, list[str]]:
    """Process → the arguments of `switchboard`."""
    lines = (REPOSITORY / "Procfile").read_text().splitlines()
    return {name: command.split()[1:] for name, _, command in (line.partition(": ") for line in lines)}


def compose() -> Document:
    found: Document = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    return found


def documents(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def base() -> list[Document]:
    """The objects of the base, through its list of resources."""
    (kustomization,) = documents(KUBERNETES / "base" / "kustomization.yaml")
    return [document for name in kustomization["resources"] for document in documents(KUBERNETES / "base" / name)]


def overlay(name: str) -> Document:
    (found,) = documents(KUBERNETES / "overlays" / name / "kustomization.yaml")
    return found


def of_kind(kind: str) -> dict[str, Document]:
    """The base's objects of a kind, by name."""
    return {document["metadata"]["name"]: document for document in base() if document["kind"] == kind}


def pod_of(workload: Document) -> Document:
    found: Document = workload["spec"]["template"]["spec"]
    return found


def container_of(workload: Document) -> Document:
    (found,) = pod_of(workload)["containers"]
    return dict(found)


def seconds(text: str) -> int:
    """Compose's `40s`."""
    match = re.fullmatch(r"(\d+)s", text)
    assert match, text
    return int(match[1])
