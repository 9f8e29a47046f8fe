"""What may be stored of a channel: settings and credentials as its adapter declares them, and an agent that exists.

Every change is checked whole, as it would be stored; all faults are found at once. No message repeats a value: it
may be a secret.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ingress.channels.flow_crypto import private_key
from shared.channels.registry import AnyChannel

Fault = dict[str, str]
"""`{"field": "credentials/app_secrets", "message": "…"}`."""

MAX_VALUES = 4
"""Of one secret, while it is rotated."""
MAX_CHARS = 8_192
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def checked(adapter: AnyChannel, settings: Mapping[str, Any], credentials: Mapping[str, Any]) -> list[Fault]:
    """All faults of both."""
    return [
        *_faults("settings", adapter.settings, settings),
        *_faults("credentials", adapter.credentials, credentials),
    ]


def spelled(adapter: AnyChannel | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Whole numbers where text is wanted become it: ids of digits look like numbers on a command line."""
    if adapter is None:  # the fault is told when it is stored
        return dict(settings)
    texts = {field.name for field in msgspec.structs.fields(adapter.settings) if field.type in (str, str | None)}
    return {
        name: str(value) if name in texts and isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in settings.items()
    }


def held(adapter: AnyChannel, credentials: Mapping[str, Any]) -> dict[str, int]:
    """Which credentials there are, and how many of each."""
    names = [field.name for field in msgspec.structs.fields(adapter.credentials)]
    counts = {name: _count(credentials.get(name)) for name in names}
    return {name: count for name, count in counts.items() if count}


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list) else int(value is not None)


def _faults(part: str, kind: type[msgspec.Struct], given: Mapping[str, Any]) -> list[Fault]:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    faults = [
        _fault(part, name, f"is not known; there are {', '.join(fields)}") for name in given if name not in fields
    ]
    for name, field in fields.items():
        if name not in given:
            if field.required:
                faults.append(_fault(part, name, "must be given"))
            continue
        try:
            msgspec.convert(given[name], field.type)
        except msgspec.ValidationError as error:
            faults.append(_fault(part, name, str(error).partition(" - at ")[0]))
            continue
        faults += [_fault(part, name, words) for words in _values(name, given[name], needed=field.required)]
    return faults


def _values(name: str, value: Any, *, needed: bool) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if len(values) > MAX_VALUES or (needed and not values):
        return [f"must have 1 to {MAX_VALUES} values"]
    texts = [each for each in values if isinstance(each, str)]
    if any(not each.strip() or len(each) > MAX_CHARS or _UNSTORABLE.search(each) for each in texts):
        return [f"must be text of 1 to {MAX_CHARS} characters, without NUL"]
    check = _RULES.get(name)
    return [] if check is None else [words for each in texts if (words := check(each))]


def _flow_key(text: str) -> str | None:
    try:
        private_key(text)
    except ValueError:
        return "must be an RSA private key in PEM, not encrypted"
    return None


def _origin(text: str) -> str | None:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        return "must be an address http://… or https://… without a query"
    return None


_RULES: Mapping[str, Callable[[str], str | None]] = {"flow_keys": _flow_key, "public_url": _origin}
"""What a type cannot say, by the name of the field."""


def _fault(part: str, name: str, message: str) -> Fault:
    return {"field": f"{part}/{name[:64]}", "message": message}
