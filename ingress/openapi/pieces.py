"""Pieces that operations of both applications are described with: parameters, headers, health, the document itself."""

from collections.abc import Callable, Mapping
from typing import Any

from ingress.openapi.describe import Answer, Header, Operation, Parameter, Schema, record, ref
from shared.telemetry.metrics import CONTENT_TYPE

UUID: Schema = {"type": "string", "format": "uuid"}
EXAMPLE_ID = "0192f0c1-7a3c-7e11-9b1e-2f6d7c1a0b42"
NO_STORE = {"Cache-Control": Header(description="Answers are of the moment.", schema={"const": "no-store"})}
HEALTH: Schema = record(
    {
        "status": {"enum": ["ok", "unavailable"]},
        "parts": {
            "type": "object",
            "description": "What each part says of itself: `ok`, or what is missing.",
            "additionalProperties": {"type": "string"},
        },
    }
)
ABOUT: Schema = record(
    {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    }
)


def job_id(description: str = "The job's id.") -> Parameter:
    return Parameter(name="job_id", where="path", description=description, schema=UUID, example=EXAMPLE_ID)


def about() -> Operation:
    return Operation(
        id="about",
        tag="About",
        summary="Where to go from here",
        description="Name, version, and the paths there are.",
        answers={200: Answer(description="The paths.", schema=ref("About"))},
    )


def live() -> Operation:
    return Operation(
        id="health_live",
        tag="Health",
        summary="Does the process serve?",
        description="For a platform's liveness probe: it asks nobody else.",
        answers={200: Answer(description="It does.", schema=record({"status": {"const": "ok"}}))},
    )


def health(name: str, summary: str, description: str, example: Mapping[str, str]) -> Operation:
    """One that looks at parts."""
    well = {"status": "ok", "parts": dict(example)}
    ill = {"status": "unavailable", "parts": {**example, "redis": "cannot be reached, or takes no writes"}}
    later = {"Retry-After": Header(description="Seconds.", schema={"type": "integer"}, always=False)}
    answers = {
        200: Answer(description="All is well.", schema=ref("Health"), headers=NO_STORE, examples={"well": well}),
        503: Answer(
            description="Something is missing.",
            schema=ref("Health"),
            headers={**NO_STORE, **later},
            examples={"ill": ill},
        ),
    }
    return Operation(id=f"health_{name}", tag="Health", summary=summary, description=description, answers=answers)


def metrics(tag: str, authenticates: Callable[..., Any]) -> Operation:
    return Operation(
        id="metrics",
        tag=tag,
        summary="This process's numbers, for Prometheus",
        description="Prometheus text. The scraper's token (`SWITCHBOARD_METRICS_TOKEN`) opens it as well.",
        security=("bearer",),
        scope="operator",
        answers={
            200: Answer(
                description="The numbers.",
                schema={"type": "string"},
                media_type=CONTENT_TYPE.partition(";")[0],
                headers=NO_STORE,
            )
        },
        raised_by=(authenticates,),
    )


def documents() -> Mapping[tuple[str, str], Operation]:
    """The paths that this very document is read at."""
    return {
        ("GET", "/openapi.json"): Operation(
            id="openapi",
            tag="About",
            summary="This document",
            description="OpenAPI 3.1, made from the code that serves it, with this deployment's limits.",
            answers={200: Answer(description="The document.", schema={"type": "object"})},
        ),
        ("GET", "/docs"): Operation(
            id="docs",
            tag="About",
            summary="This document, as a page",
            description="One page without any other resource; it works without internet.",
            answers={200: Answer(description="The page.", schema={"type": "string"}, media_type="text/html")},
        ),
    }
