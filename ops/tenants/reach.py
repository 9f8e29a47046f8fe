"""What a tenant may change of its own settings: all but its plan, and nothing to more than the plan gives.

Only what a change alters is judged, so that a tenant to whom an operator gave more can still change the rest. Lowering
is free, and so is going back to the plan.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ops.tenants.document import Fault, pointer
from shared.tenants import NONE, PLAN_DOCUMENTS, Document, complete, nano_usd

_OPERATORS = ("plan", "unlimited")
_BOUNDED = ("rates", "budgets")
_ANY_SHARE = frozenset({"budgets/warn", "budgets/downgrade"})
"""Say when somebody is told, not how much may be spent."""


def beyond_plan(before: Document, after: Document) -> list[Fault]:
    """Faults of a change that only an operator may make. Both documents are sound."""
    old = complete(before)
    new = complete({**after, "plan": old["plan"]})
    wanted = complete(after)
    faults = [_fault(name, "is for operators to change") for name in _OPERATORS if old[name] != wanted[name]]
    plan = PLAN_DOCUMENTS[old["plan"]]
    for part in _BOUNDED:
        had, given = dict(_leaves(old[part], part)), dict(_leaves(plan[part], part))
        for place, value in _leaves(new[part], part):
            if value != had[place] and place not in _ANY_SHARE and _size(value) > _size(given[place]):
                faults.append(_fault(place, f"must be at most {given[place]}, which the plan {old['plan']!r} gives"))
    return faults


def _leaves(part: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}/{name}")
        else:
            yield f"{path}/{name}", value


def _size(value: Any) -> float:
    """Comparable among values of one setting; exact for all that a document may hold."""
    if value == NONE:
        return float("inf")
    return nano_usd(value) if isinstance(value, str) else value


def _fault(place: str, message: str) -> Fault:
    return {"field": f"{pointer('settings')}/{place}", "message": message}
