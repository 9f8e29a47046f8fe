"""docs/openai.md says of every parameter what the code does with it."""

import json
import re
from pathlib import Path

import pytest
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params

from ingress.openai.params import IGNORED, REFUSED, ChatBody, ResponseBody

PAGE = (Path(__file__).parents[2] / "docs" / "openai.md").read_text()
IGNORED_ROW = re.compile(r"^\| (both|responses|chat) \| ((?:`\w+` ?)+) \|$", re.MULTILINE)
REFUSED_ROW = re.compile(r"^\| (both|responses|chat) \| `(\w+)` \| (.*?) ?\|$", re.MULTILINE)


@pytest.mark.parametrize("api", ["responses", "chat"])
def test_ignored_and_refused_parameters_are_those_of_the_page(api: str) -> None:
    ignored = [name for scope, names in IGNORED_ROW.findall(PAGE) if scope in (api, "both") for name in names.split()]
    assert sorted(name.strip("`") for name in ignored) == sorted(IGNORED[api])
    refused = {name: values for scope, name, values in REFUSED_ROW.findall(PAGE) if scope in (api, "both")}
    assert {name: _values(text) for name, text in refused.items()} == {
        name: list(each.unless) for name, each in REFUSED[api].items()
    }


NOT_KNOWN = {"access_programs", "image"}
"""Of the Responses API: they are refused as unknown."""


@pytest.mark.parametrize(
    ("api", "params", "body"),
    [
        ("responses", response_create_params.ResponseCreateParamsStreaming, ResponseBody),
        ("chat", completion_create_params.CompletionCreateParamsStreaming, ChatBody),
    ],
)
def test_every_parameter_of_the_sdk_is_decided(api: str, params: type, body: type[ChatBody | ResponseBody]) -> None:
    decided = {*body.model_fields, *IGNORED[api], *REFUSED[api]}
    assert len(params.__annotations__) > 30
    assert params.__annotations__.keys() - decided <= NOT_KNOWN


def _values(text: str) -> list[object]:
    return [json.loads(value) for value in re.findall(r"`([^`]+)`", text)]
