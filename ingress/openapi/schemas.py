"""JSON schemas of our types, with the words that stand beside their fields.

Three kinds: bodies (pydantic models, their rules included), structs (msgspec), and resources: what callers are shown
of a struct. A resource is described from one that was really made, so that a field added there is in the document.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from pydantic import BaseModel

from ingress.openapi.describe import Schema, nullable, record

REFS = "#/components/schemas/{}"
MOMENT: Schema = {"type": "string", "format": "date-time"}
DOLLARS: Schema = {"type": "string", "pattern": r"^-?\d+\.\d{9}$", "description": "Exact decimal US dollars."}


def of_struct(kind: type[msgspec.Struct]) -> Schema:
    """Every field is there in our answers, so all are required and defaults say nothing."""
    return _object(kind, fields_of(kind))


def of_model(model: type[BaseModel], limits: Mapping[str, Schema] | None = None) -> dict[str, Schema]:
    """The model and those it is made of, by name. `limits` adds keywords that are settings to fields of the model."""
    whole = model.model_json_schema(ref_template=REFS.format("{model}"))
    parts = {**whole.pop("$defs", {}), model.__name__: whole}
    kinds = {kind.__name__: kind for kind in _models(model)}
    for name, part in parts.items():
        docs = field_docs(kinds[name]) if name in kinds else {}
        for field, schema in part.get("properties", {}).items():
            _plain(schema)
            if field in docs:
                schema["description"] = docs[field]
        part.pop("title", None)
    for field, keywords in (limits or {}).items():
        filled(whole["properties"][field]).update(keywords)
    return parts


def of_resource(shown: Mapping[str, Any], *kinds: type[msgspec.Struct], **exact: Schema) -> Schema:
    """What `shown`, a complete example, says of values of these kinds. `exact` wins.

    A member is the field of its name; `*_at` is the moment of the field `*_us`, `cost_usd` the money of
    `cost_nano_usd`. Others (`object`, sums) are described by their value.
    """
    fields = {name: schema for kind in kinds for name, schema in fields_of(kind).items()}
    members = {name: exact.get(name) or _member(name, value, fields) for name, value in shown.items()}
    return _object(kinds[0], members)


@cache
def field_docs(kind: type) -> dict[str, str]:
    """The string below a field, our way to say what it means, by field; of base classes too."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.partition(".")[0] in {"builtins", "msgspec", "pydantic"}:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)  # noqa: S101 - it is the source of a class
        for field, below in zip(body.body, body.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = re.sub(r"\bNone\b", "null", inspect.cleandoc(text))
    return docs


def fields_of(kind: type[msgspec.Struct]) -> dict[str, Schema]:
    """A schema per field. Other structs and enums are referred to by name."""
    _, components = msgspec.json.schema_components([kind], ref_template=REFS.format("{name}"))
    properties: dict[str, Schema] = components[kind.__name__]["properties"]
    docs = field_docs(kind)
    for name, schema in properties.items():
        _plain(schema)
        schema.pop("default", None)
        if name in docs:
            schema["description"] = docs[name]
    return properties


def _object(kind: type, members: Mapping[str, Schema]) -> Schema:
    words = vars(kind).get("__doc__")
    return record(members, **({"description": inspect.cleandoc(words)} if words else {}))


def _member(name: str, value: Any, fields: Mapping[str, Schema]) -> Schema:
    if name in fields:
        return fields[name]
    stored = {"cost_usd": "cost_nano_usd"}.get(name, f"{name.removesuffix('_at')}_us")
    if stored in fields:
        schema = DOLLARS if name == "cost_usd" else MOMENT
        return nullable(schema) if "anyOf" in fields[stored] else schema
    if name == "object":
        return {"const": value}
    return {"type": {int: "integer", str: "string", bool: "boolean"}[type(value)]}


def _plain(schema: Schema) -> None:
    """Without what a reader learns nothing from: titles made of names, `default: null`."""
    schema.pop("title", None)
    if schema.get("default", ...) in (None, {}):
        del schema["default"]


def filled(schema: Schema) -> Schema:
    """The part of a nullable schema that is not null."""
    filled: Schema = schema["anyOf"][0] if "anyOf" in schema else schema
    return filled


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [field.annotation for field in model.model_fields.values()]
    nested = [kind for kind in inner if inspect.isclass(kind) and issubclass(kind, BaseModel)]
    return [model, *(deeper for kind in nested for deeper in _models(kind))]
