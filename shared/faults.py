"""What is wrong with a setting, said so that a person can mend it: its name, its value, what is allowed, an example.

Used by `shared.config` alone. The words come from the settings' own JSON schema, so that a new setting has them too; a
field's `description` replaces them where a pattern would say nothing to a reader. No secret is shown.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

SECRET_NAMES = re.compile(r"KEY$|SECRET|DSN|PASSWORD|TOKEN$")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,15}://", re.IGNORECASE)

Schema = Mapping[str, Any]
"""The JSON schema of one field."""


class Fault(NamedTuple):
    """`str(fault)` is one line for a person."""

    name: str
    """The environment variable."""
    shown: str
    """The value as given, unless it is or holds a secret."""
    allowed: str
    """Completes "must be …"."""
    example: str

    @property
    def mend(self) -> str:
        return f"{self.name}={self.example}"

    def __str__(self) -> str:
        return f"{self.name}={self.shown}: must be {self.allowed}, for example {self.mend}"


def fault_of(name: str, value: object, schema: Schema) -> Fault:
    return Fault(name, shown(name, value), allowed(schema), _example(schema))


def summary(faults: Iterable[Fault]) -> str:
    """One fault is one line; several stand on lines of their own."""
    lines = [str(fault) for fault in faults]
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} settings are wrong:", *lines])


def shown(name: str, value: object) -> str:
    """Of an address no more than its scheme: what follows may hold a password, in whatever place."""
    text = str(value)
    if SECRET_NAMES.search(name):
        return "<hidden>" if text else "''"
    if "URL" in name:
        scheme = _SCHEME.match(text)
        return f"{scheme.group() if scheme else ''}<hidden>"
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def allowed(schema: Schema) -> str:
    """A JSON schema in words: "a whole number from 1 to 65535"."""
    if "description" in schema:
        return str(schema["description"])
    if "enum" in schema:
        return _or([str(value) for value in schema["enum"]])
    if "anyOf" in schema:
        return _or([allowed(each) for each in schema["anyOf"] if each.get("type") != "null"])
    pattern = f" that matches {schema['pattern']}" if "pattern" in schema else ""
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    return words.get(str(schema.get("type")), "text") + pattern + _range(schema) + _length(schema)


def _range(schema: Schema) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high = schema.get("maximum")
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    if above is not None:
        return f" greater than {_number(above)}" + (f", at most {_number(high)}" if high is not None else "")
    if low is not None:
        return f", {_number(low)} or more"
    return f", at most {_number(high)}" if high is not None else ""


def _number(value: float) -> str:
    """In full: `{:g}` would write a year's seconds as 3.1536e+07."""
    return str(int(value)) if value == int(value) else str(value)


def _length(schema: Schema) -> str:
    return f" of at most {schema['maxLength']} characters" if "maxLength" in schema else ""


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _example(schema: Schema) -> str:
    default = schema.get("default")
    if default not in (None, ""):
        return str(default).lower() if isinstance(default, bool) else str(default)
    for each in (schema, *schema.get("anyOf", ())):
        for key in ("examples", "enum"):
            if each.get(key):
                return str(each[key][0])
    return "…"


def unknown_names(given: Iterable[str], known: Iterable[str], prefix: str) -> list[str]:
    """One sentence for each name with our prefix that is no setting: a typing error would silently do nothing."""
    names = sorted(known)
    strangers = sorted(name for name in given if name.upper().startswith(prefix) and name.upper() not in names)
    return [f"{name} is not a setting and does nothing{_near(name, names, prefix)}" for name in strangers]


def _near(name: str, known: list[str], prefix: str) -> str:
    ours = {one.removeprefix(prefix): one for one in known}
    close = difflib.get_close_matches(name.upper().removeprefix(prefix), list(ours), n=1, cutoff=0.7)
    return f"; did you mean {ours[close[0]]}?" if close else ""
