"""The documents say what the code does: every route, every member, every problem, and examples that hold."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ingress.app import ROUTES as INGRESS_ROUTES
from ingress.openapi.components import QUEUED
from ingress.openapi.describe import Api
from ingress.openapi.document import build, undescribed
from ingress.openapi.operations import INGRESS
from ingress.openapi.refusals import refusals
from ingress.openapi.schemas import of_model, of_resource, of_struct
from ops.console.app import ROUTES as CONSOLE_ROUTES
from ops.console.openapi.operations import CONSOLE
from ops.document import printed
from shared.config import Settings
from shared.errors import Conflict, NotFound, Unavailable
from shared.jobs import JobRecord, JobState

Document = dict[str, Any]
SETTINGS = Settings.read()
APPLICATIONS: list[tuple[Api, list[Route]]] = [(INGRESS, INGRESS_ROUTES), (CONSOLE, CONSOLE_ROUTES)]
both = pytest.mark.parametrize(("api", "routes"), APPLICATIONS, ids=["ingress", "console"])


@pytest.fixture(scope="module")
def ingress() -> Document:
    return build(INGRESS, INGRESS_ROUTES, SETTINGS)


@both
def test_every_route_is_described_and_every_description_has_its_route(api: Api, routes: list[BaseRoute]) -> None:
    assert undescribed(api, routes) == (set(), set())


def test_a_route_without_a_description_and_one_without_a_route_are_named() -> None:
    async def nothing(_request: Request) -> Response:
        return Response()

    routes: list[BaseRoute] = [route for route in INGRESS_ROUTES if route.path != "/"]
    routes.append(Route("/new", nothing, methods=["POST"]))
    assert undescribed(INGRESS, routes) == ({("POST", "/new")}, {("GET", "/")})


@both
def test_the_document_is_openapi_3_1(api: Api, routes: list[BaseRoute]) -> None:
    document = build(api, routes, SETTINGS)
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    msgspec.json.encode(document)


@both
def test_every_example_is_what_its_schema_says(api: Api, routes: list[BaseRoute]) -> None:
    document = build(api, routes, SETTINGS)
    checked = 0
    for where, schema, example in examples_of(document):
        validator = OAS31Validator({**schema, "components": document["components"]})
        assert [error.message for error in validator.iter_errors(example)] == [], where
        checked += 1
    assert checked > 30


@both
def test_every_problem_is_shown_with_a_sentence_or_with_dots(api: Api, routes: list[BaseRoute]) -> None:
    details = {
        example["value"]["detail"]
        for operation in operations_of(build(api, routes, SETTINGS))
        for status, answer in operation["responses"].items()
        if int(status) >= 400 and "application/problem+json" in answer.get("content", {})
        for example in content_of(answer)["examples"].values()
    }
    assert not details & {"", "None"}
    assert len(details) > 5


@both
def test_operations_have_words_ids_of_their_own_and_known_tags(api: Api, routes: list[BaseRoute]) -> None:
    document = build(api, routes, SETTINGS)
    operations = list(operations_of(document))
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    known = {tag["name"] for tag in document["tags"]}
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert set(operation["tags"]) <= known
        for parameter in operation["parameters"]:
            assert parameter["description"], parameter["name"]
        for answer in operation["responses"].values():
            assert answer["description"]
            assert answer["headers"]["X-Request-ID"]


@both
def test_path_parameters_are_those_of_the_path(api: Api, routes: list[BaseRoute]) -> None:
    for path, methods in build(api, routes, SETTINGS)["paths"].items():
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for operation in methods.values():
            assert {one["name"] for one in operation["parameters"] if one["in"] == "path"} == named


@both
def test_what_needs_a_key_says_so_and_how_it_is_refused(api: Api, routes: list[BaseRoute]) -> None:
    for operation in operations_of(build(api, routes, SETTINGS)):
        if operation["security"]:
            assert {"401", "403", "503"} <= operation["responses"].keys()
            assert operation["responses"]["401"]["headers"]["www-authenticate"]["required"]
        else:
            assert "401" not in operation["responses"]


def test_the_job_is_described_as_it_is_shown(ingress: Document) -> None:
    schema = ingress["components"]["schemas"]["Job"]
    assert schema["required"] == list(schema["properties"]) == list(QUEUED.resource())
    assert schema["properties"]["state"] == {"$ref": "#/components/schemas/JobState"}
    assert set(ingress["components"]["schemas"]["JobState"]["enum"]) == set(JobState)


def test_a_member_added_to_a_resource_is_in_its_schema() -> None:
    class Parcel(msgspec.Struct):
        """On its way."""

        sent_us: int
        received_us: int | None
        cost_nano_usd: int
        shelf: str | None = None
        """Where it stands. None on the way."""

    shown = {"object": "parcel", "sent_at": "…", "received_at": None, "cost_usd": "…", "shelf": None, "pieces": 3}
    schema = of_resource(shown, Parcel)
    moment = {"type": "string", "format": "date-time"}
    properties = schema["properties"]
    assert schema["required"] == list(shown)
    assert schema["description"] == "On its way."
    assert properties["object"] == {"const": "parcel"}
    assert properties["sent_at"] == moment
    assert properties["received_at"] == {"anyOf": [moment, {"type": "null"}]}
    assert properties["cost_usd"]["type"] == "string"
    assert properties["shelf"]["description"] == "Where it stands. null on the way."
    assert properties["pieces"] == {"type": "integer"}


def test_a_field_added_to_a_body_is_in_its_schema_with_its_words() -> None:
    class Inner(BaseModel):
        size: int = 3
        """In pieces."""

    class Outer(BaseModel):
        inner: Inner = Inner()
        word: str | None = None
        """Any."""

    parts = of_model(Outer, {"word": {"maxLength": 9}})
    assert parts["Inner"]["properties"]["size"] == {"type": "integer", "default": 3, "description": "In pieces."}
    assert parts["Outer"]["properties"]["word"] == {
        "anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}],
        "description": "Any.",
    }


def test_limits_are_those_of_the_deployment() -> None:
    settings = SETTINGS.model_copy(update={"max_message_chars": 77, "max_ttl_s": 99})
    body = build(INGRESS, INGRESS_ROUTES, settings)["components"]["schemas"]["MessageBody"]["properties"]
    assert body["message"]["maxLength"] == 77
    assert body["ttl_s"]["anyOf"][0]["maximum"] == 99


PAUSE_S = 7


class Desk:
    async def serve(self, name: str) -> None:
        self._check(name)
        _look(name)

    def _check(self, name: str) -> None:
        if not name:
            raise Unavailable("closed", retry_after_s=PAUSE_S)


def _look(name: str) -> None:
    if name == "gone":
        raise NotFound("It is gone.")
    raise Conflict(f"{name} is taken.", code="taken", status=422)


def test_the_errors_that_a_function_reaches_are_found_as_callers_get_them() -> None:
    found = {(one.status, one.code): one for one in refusals(Desk.serve)}
    assert found.keys() == {(404, "not_found"), (422, "taken"), (503, "unavailable")}
    assert found[422, "taken"].detail == "… is taken."
    assert found[503, "unavailable"].headers == {"retry-after": "7"}


def test_the_ways_to_refuse_a_message_are_all_there(ingress: Document) -> None:
    answers = ingress["paths"]["/v1/agents/{agent_id}/messages"]["post"]["responses"]
    codes = {status: set(content_of(answer)["examples"]) for status, answer in answers.items() if int(status) >= 400}
    assert codes["404"] == {"not_found"}
    assert codes["413"] == {"too_large"}
    assert codes["409"] == {"conversation_busy"}
    assert codes["422"] == {"invalid_request", "idempotency_mismatch", "conversation_owner"}
    assert codes["503"] == {"queue_full", "unavailable"}
    assert (codes["402"], codes["429"]) == ({"budget_exhausted"}, {"rate_limited"})
    assert answers["429"]["headers"]["retry-after"]["required"]
    for answer in answers.values():
        assert {"RateLimit", "RateLimit-Policy", "X-RateLimit-Remaining"} <= answer["headers"].keys()
    assert "x-should-retry" in answers["409"]["headers"]
    assert "retry-after" in answers["503"]["headers"]


def test_a_job_can_be_read_with_a_key_or_with_its_token_and_cancelled_with_a_key_only(ingress: Document) -> None:
    job = ingress["paths"]["/v1/jobs/{job_id}"]
    assert job["get"]["security"] == [{"bearer": []}, {"read_token": []}]
    assert job["delete"]["security"] == [{"bearer": []}]


@pytest.mark.parametrize("console", [False, True])
def test_the_command_prints_what_the_application_serves(console: bool) -> None:
    api, routes = APPLICATIONS[console]
    assert json.loads(printed(SETTINGS, console=console)) == build(api, routes, SETTINGS)


def test_structs_are_described_with_their_words() -> None:
    usage = of_struct(JobRecord)["properties"]
    assert usage["incomplete"]["description"] == "Why the reply is cut short: `max_output_tokens`."
    assert "default" not in usage["attempts"]


def operations_of(document: Document) -> Iterator[Document]:
    for methods in document["paths"].values():
        yield from methods.values()


def content_of(answer: Document) -> Document:
    (content,) = answer["content"].values()
    found: Document = content
    return found


def examples_of(document: Document) -> Iterator[tuple[str, Document, Any]]:
    """Where, the schema, the example. Those of event streams are text, made of events."""
    for operation in operations_of(document):
        name = operation["operationId"]
        for parameter in operation["parameters"]:
            if "example" in parameter:
                yield f"{name} {parameter['name']}", parameter["schema"], parameter["example"]
        for answer in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for media_type, content in answer.get("content", {}).items():
                if media_type != "text/event-stream":
                    for title, example in content.get("examples", {}).items():
                        yield f"{name} {title}", content["schema"], example["value"]
