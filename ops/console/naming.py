"""Routes to what callers have named themselves: a user or a conversation may have a slash in its name."""

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote

from starlette.routing import Match, Route


class Named(Route):
    """Matched against the path as it was sent, where a slash within a name is `%2F`: in a decoded one the user
    `ada/profile` is Ada's profile."""

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        raw: bytes | None = scope.get("raw_path")  # servers may leave it out
        match, found = super().matches(scope if raw is None else {**scope, "path": raw.decode("latin-1")})
        if match is not Match.NONE:
            found["path_params"] = {name: unquote(value) for name, value in found["path_params"].items()}
        return match, found
