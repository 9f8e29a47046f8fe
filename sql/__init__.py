"""The database as text: `migrations/*.sql` in order, `queries/*.sql` by name, and a loader for the latter.

A query is a line `-- name: …`, a comment of one line with its purpose and parameters, and the statement with `$1 …`:
`queries["commit_turn"]` is its text. Callers run it through `shared.db`; a test prepares every one.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_NAME = re.compile(r"^-- name: *(\w+)\n", re.MULTILINE)


def parse_queries(text: str) -> dict[str, str]:
    """Statements by name, without their comments. Raises ValueError on a name given twice or without a statement."""
    parts = _NAME.split(text)[1:]
    found: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        statement = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
        if name in found or not statement:
            raise ValueError(f"query {name!r} is given twice or empty")
        found[name] = statement
    return found


def _load(folder: Path) -> Mapping[str, str]:
    """Every query of a folder; one namespace, so that a name alone finds its statement."""
    return MappingProxyType(
        parse_queries("\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.sql"))))
    )


queries: Mapping[str, str] = _load(Path(__file__).parent / "queries")
