"""What was typed, as the same values that the HTTP API takes. Every fault of it is found at once."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from ingress.body import described
from shared.errors import InvalidRequest

B = TypeVar("B", bound=BaseModel)


def checked(model: type[B], given: Mapping[str, Any], *, whole: str = "switchboard") -> B:
    """`whole`: what is named where no single field is at fault. Raises InvalidRequest with every fault."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = [described(item) for item in error.errors(include_url=False, include_input=False)]
        faults = [{**fault, "field": fault["field"] or whole} for fault in faults]
        raise InvalidRequest("The request has faults.", faults=faults) from None


def patch_of(assignments: Sequence[str], patch: str | None = None) -> dict[str, Any]:
    """`["rates.user_per_min=50"]` over a JSON merge patch (`-`: on stdin). Raises InvalidRequest with every fault."""
    faults = []
    whole = {} if patch is None else _object(sys.stdin.read() if patch == "-" else patch)
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            faults.append({"field": assignment, "message": "must be setting=value, such as rates.user_per_min=50"})
            continue
        whole = _laid_over(whole, names, _value(names[-1], value))
    if faults:
        raise InvalidRequest("The settings have faults.", faults=faults)
    return whole


def _laid_over(patch: Mapping[str, Any], names: Sequence[str], value: Any) -> dict[str, Any]:
    """The patch with one more place; unlike `merged` it keeps nulls, which say what is to go."""
    first, *rest = names
    inner = patch.get(first)
    below = _laid_over(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value
    return {**patch, first: below}


def _value(name: str, text: str) -> Any:
    """JSON where it is some, else the text itself; an amount of money stays as it was written."""
    if name.endswith("_usd") and text != "null":
        return text.strip('"')
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        fault = {"field": "--patch", "message": f"must be a JSON object: {error}"}
        raise InvalidRequest("The patch cannot be read.", faults=[fault]) from None
