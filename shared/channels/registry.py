"""Find the adapters: one file each, nothing to register. Whoever knows channels calls `load`, at start."""

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

from shared import channels
from shared.channels.api import Channel
from shared.errors import ConfigError

AnyChannel = Channel[Any, Any]
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")


@cache
def load() -> Mapping[str, AnyChannel]:
    """One instance of every adapter, by kind, sorted. Raises ConfigError for two of a kind or an incomplete one."""
    found: dict[str, AnyChannel] = {}
    for adapter in _adapters():
        where = f"{adapter.__module__}: {adapter.__name__}"
        for name in ("kind", "label", "settings", "credentials"):
            if not hasattr(adapter, name):
                raise ConfigError(f"{where} has no {name}")
        if not _KIND.fullmatch(adapter.kind) or adapter.kind in found:
            raise ConfigError(f"{where}: the kind {adapter.kind!r} is taken, or no kind")
        found[adapter.kind] = adapter()
    return MappingProxyType(dict(sorted(found.items())))


def _adapters() -> Iterator[type[AnyChannel]]:
    for info in iter_modules(channels.__path__):
        module = import_module(f"{channels.__name__}.{info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, Channel) and member is not Channel and member.__module__ == module.__name__:
                yield member
