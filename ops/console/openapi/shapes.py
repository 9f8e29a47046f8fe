"""What the console's operations have in common, described once: examples' moment, pages, answers, query strings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ingress.openapi import pieces
from ingress.openapi.describe import Answer, Header, Operation, Parameter, Schema, listing, nullable, ref
from ingress.openapi.schemas import filled, of_model

Headers = Mapping[str, Header]

AT_US = 1_795_246_241_000_001
"""When everything in the examples happens."""
CURSOR: Schema = {**nullable({"type": "string"}), "description": "For the next page; null on the last one."}
TENANT = "One tenant only. An `admin` key has no other than its own."
PAGE = {"limit": "Rows of a page.", "cursor": "A page's `next_cursor`, to go on after it."}


def query(model: type[BaseModel], about: Mapping[str, str]) -> dict[str, Parameter]:
    """By name, the query string that `model` reads. A parameter that is absent is null."""
    properties = of_model(model)[model.__name__]["properties"]
    return {
        name: Parameter(name=name, where="query", description=about[name], schema=_undescribed(filled(schema)))
        for name, schema in properties.items()
    }


def _undescribed(schema: Schema) -> Schema:
    """The parameter says what it is."""
    return {key: value for key, value in schema.items() if key != "description"}


def one(what: str, name: str, example: Any, *, called: str = "one", headers: Headers = pieces.NO_STORE) -> Answer:
    return Answer(
        description=what, schema=ref(name), headers={**pieces.NO_STORE, **headers}, examples={called: example}
    )


def located(description: str = "Its path.") -> Headers:
    """Those of an answer that says where the thing is from now on."""
    return {**pieces.NO_STORE, "Location": Header(description=description, schema={"type": "string"})}


def all_of(name: str, example: Any, what: str = "All of them.") -> Answer:
    whole = {"object": "list", "data": [example]}
    return Answer(description=what, schema=listing(ref(name)), headers=pieces.NO_STORE, examples={"one": whole})


def page(name: str, example: Any, what: str = "A page.", **more: Any) -> Answer:
    return Answer(
        description=what,
        schema=listing(ref(name), next_cursor=CURSOR),
        headers=pieces.NO_STORE,
        examples={"one": {"object": "list", "data": [example], "next_cursor": None}},
        **more,
    )


def operations(tag: str, *everywhere: Callable[..., Any]) -> Callable[..., Operation]:
    """A maker of the operations under `tag`, all of which also raise what `everywhere` does."""

    def described(
        name: str,
        summary: str,
        description: str,
        answers: Mapping[int, Answer],
        *,
        scope: str = "admin",
        raised_by: Sequence[Callable[..., Any]] = (),
        **more: Any,
    ) -> Operation:
        return Operation(
            id=name,
            tag=tag,
            summary=summary,
            description=description,
            security=("bearer",),
            scope=scope,
            answers=answers,
            raised_by=(*everywhere, *raised_by),
            **more,
        )

    return described
