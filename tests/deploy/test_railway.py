"""Railway's config as code. Its schema is behind its site, so the keys are compared with those that are documented:
https://docs.railway.com/config-as-code/reference (read in November 2026)."""

import json

import pytest

from ops.serve import GRACEFUL_STOP_S
from shared.config import Settings
from tests.deploy.reading import REPOSITORY, procfile

FOLDER = REPOSITORY / "deploy" / "railway"
BUILD = {"builder", "watchPatterns", "buildCommand", "dockerfilePath"}
DEPLOY = {
    "startCommand": str,
    "preDeployCommand": list,
    "healthcheckPath": str,
    "healthcheckTimeout": int,
    "restartPolicyType": str,
    "restartPolicyMaxRetries": int,
    "cronSchedule": str,
    "overlapSeconds": int,  # numbers: the parser refuses the documentation's strings (railwayapp/docs issue 1243)
    "drainingSeconds": int,
}
FILES = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}


@pytest.mark.parametrize("name", FILES)
def test_only_documented_keys_with_documented_types(name: str) -> None:
    config = FILES[name]
    assert config.keys() == {"$schema", "build", "deploy"}
    assert config["build"].keys() <= BUILD
    assert config["build"] == {"builder": "DOCKERFILE", "dockerfilePath": "Dockerfile"}
    for key, value in config["deploy"].items():
        assert type(value) is DEPLOY[key], key
    assert config["deploy"]["restartPolicyType"] in {"ON_FAILURE", "ALWAYS", "NEVER"}


def test_every_process_of_the_procfile_is_there() -> None:
    commands = procfile()
    release = commands.pop("release")
    assert {name: FILES[name]["deploy"]["startCommand"] for name in FILES} == {
        name: f"switchboard {arguments[0]}" for name, arguments in commands.items()
    }
    assert FILES["ingress"]["deploy"]["preDeployCommand"] == [f"switchboard {release[0]}"]


def test_a_stop_leaves_time_for_the_drain() -> None:
    assert FILES["worker"]["deploy"]["drainingSeconds"] >= Settings.model_fields["drain_s"].default + 10
    assert FILES["ingress"]["deploy"]["drainingSeconds"] > GRACEFUL_STOP_S
