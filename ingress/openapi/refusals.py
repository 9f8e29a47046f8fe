"""Which problems an operation can answer with: found in the source of the functions it reaches.

`refusals` follows calls by global name, and of an object's own methods, through our packages, and makes each error it
sees constructed (`Conflict("…", code="job_ended")`) into the problem that callers would get, by the code that serves
it. Calls through other objects are not followed: descriptions name those places (`raised_by`).
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from ingress.problems import Problem, problem_of
from shared.errors import CallerError, SwitchboardError, Unavailable

_OURS = frozenset({"ingress", "ops", "shared"})
SHOWN: Mapping[str, Any] = {"level": "user", "retry_after_s": 12, "scope": "user-month", "resets_at_s": 1_796_083_200}
"""What an error tells that only a run knows, for the example."""
A_FAULT = {"field": "user_id", "message": "must consist of printable characters"}


def refusals(*roots: Callable[..., Any]) -> list[Problem]:
    """One problem per status and code, the lowest status first."""
    found: dict[tuple[int, str], Problem] = {}
    seen: set[Callable[..., Any]] = set()
    waiting = [inspect.unwrap(root) for root in roots]
    while waiting:
        function = waiting.pop(0)
        if function in seen:
            continue
        seen.add(function)
        for problem in _made_in(function):
            found.setdefault((problem.status, problem.code), problem)
        waiting += [inspect.unwrap(target) for target, _ in _calls(function) if _is_near(target, function)]
    return [found[key] for key in sorted(found)]


def _made_in(function: Callable[..., Any]) -> Iterator[Problem]:
    for target, call in _calls(function):
        if inspect.isclass(target) and issubclass(
            target, CallerError | Unavailable
        ):  # of Unanswered only a run knows status and code
            yield problem_of(_error(target, call, function.__globals__))


def _calls(function: Callable[..., Any]) -> Iterator[tuple[Any, ast.Call]]:
    """What is called by a global name of the function's module, or as a method of its own object, and how."""
    names = function.__globals__
    owner = names.get(function.__qualname__.partition(".")[0])
    for node in ast.walk(_source(function)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in names:
                yield names[name], node
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)) if hasattr(owner, name):
                yield getattr(owner, name), node


@cache
def _source(function: Callable[..., Any]) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _is_near(target: Any, function: Callable[..., Any]) -> bool:
    """In our packages, or in the caller's own."""
    near = _OURS | {function.__module__.partition(".")[0]}
    return inspect.isfunction(target) and target.__module__.partition(".")[0] in near


def _error(kind: type[SwitchboardError], call: ast.Call, names: Mapping[str, Any]) -> SwitchboardError:
    texts = ["…" if (text := _value(argument, names)) is None else text for argument in call.args]
    options = {keyword.arg: _value(keyword.value, names) for keyword in call.keywords if keyword.arg}
    if "faults" in options:
        options["faults"] = [A_FAULT]
    known = {name: SHOWN.get(name) if value is None else value for name, value in options.items()}
    return kind(*texts, **{name: value for name, value in known.items() if value is not None})


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """A constant, a global's value, or a text with `…` for what is filled in; None for what only a run could tell."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names.get(name)
        case ast.JoinedStr(values=values):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in values)
    return None
