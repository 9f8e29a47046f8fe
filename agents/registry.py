"""Find the agents: one file each, nothing to register.

Called once at start by ingress (which names exist?) and by the workers (who answers?). After `load` every agent is
valid and every id is unique; otherwise one ConfigError says everything that is wrong and in which file.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType, ModuleType
from typing import get_args

from agents.api import Agent, Routing
from shared.errors import ConfigError
from shared.wire import MAX_MERGE_WINDOW_S, Policy

_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MODEL = re.compile(r"[a-z][a-z0-9_-]*:\S+")
_NOT_AGENTS = frozenset({"agents.api", "agents.registry"})


def load(packages: Sequence[str] = ("agents",)) -> Mapping[str, Agent]:
    """One instance of every agent in `packages`, by id, sorted. Files whose name starts with `_` are left alone.

    Raises ConfigError with all faults: a file that cannot be imported or holds no agent, a setting out of range,
    an id used twice.
    """
    found: dict[str, Agent] = {}
    faults: list[str] = []
    for name in _module_names(packages):
        try:
            agent = _agent_of(name)
        except ConfigError as error:
            faults.append(str(error))
            continue
        if agent.id in found:
            faults.append(f"{name}: the id {agent.id!r} is already taken by {type(found[agent.id]).__module__}")
        found.setdefault(agent.id, agent)
    if faults:
        raise ConfigError("; ".join(faults))
    return MappingProxyType(dict(sorted(found.items())))


def _module_names(packages: Sequence[str]) -> Iterator[str]:
    for package in packages:
        path = getattr(_import(package), "__path__", None)
        if path is None:
            raise ConfigError(f"{package}: not a package of agents")
        names = (f"{package}.{info.name}" for info in iter_modules(path) if not info.name.startswith("_"))
        yield from (name for name in names if name not in _NOT_AGENTS)


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        raise ConfigError(f"{name}: cannot be imported ({type(error).__name__}: {error})") from error


def _agent_of(module_name: str) -> Agent:
    """The one agent a file defines, checked."""
    module = _import(module_name)
    classes = [
        member
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Agent) and member.__module__ == module_name and not name.startswith("_")
    ]
    if len(classes) != 1:
        raise ConfigError(f"{module_name}: must define one subclass of Agent, found {len(classes)}")
    if faults := list(_faults(classes[0])):
        raise ConfigError(f"{module_name}: {', '.join(faults)}")
    try:
        return classes[0]()
    except Exception as error:
        raise ConfigError(f"{module_name}: cannot be made ({type(error).__name__}: {error})") from error


def _faults(agent: type[Agent]) -> Iterator[str]:
    """What is wrong with an agent's settings, a phrase each."""
    if not _ID.fullmatch(_text(agent, "id")):
        yield f"id must match {_ID.pattern}"
    if not _ID.fullmatch(agent.queue):
        yield f"queue must match {_ID.pattern}"
    for name in ("label", "system_prompt"):
        if not _text(agent, name).strip():
            yield f"{name} is missing"
    if not agent.models or isinstance(agent.models, str):
        yield "models must be a tuple of `provider:model`"
    else:
        yield from (f"{spec!r} is not `provider:model`" for spec in agent.models if not _MODEL.fullmatch(spec))
    yield from _word_faults(agent)
    if agent.history_messages < 0:
        yield "history_messages must not be negative"
    if agent.max_tokens is not None and agent.max_tokens < 1:
        yield "max_tokens must be positive"
    if agent.timeout_s <= 0:
        yield "timeout_s must be positive"
    if not inspect.iscoroutinefunction(agent.answer):
        yield "answer must be an async function"


def _word_faults(agent: type[Agent]) -> Iterator[str]:
    for name, words in (("policy", get_args(Policy)), ("routing", get_args(Routing))):
        if getattr(agent, name) not in words:
            yield f"{name} must be one of {', '.join(words)}"
    if not 0 <= agent.merge_window_s <= MAX_MERGE_WINDOW_S:
        yield f"merge_window_s must be from 0 to {MAX_MERGE_WINDOW_S:g}"


def _text(agent: type[Agent], name: str) -> str:
    value = getattr(agent, name, "")
    return value if isinstance(value, str) else ""
