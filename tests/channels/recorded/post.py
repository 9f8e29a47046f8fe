"""One request of a provider, and what is to become of it."""

from dataclasses import dataclass
from typing import Any

SLOW = "held up"
"""In one message of each provider: for faults that strike it."""


@dataclass(frozen=True)
class Post:
    content: Any
    said: tuple[tuple[str, str], ...] = ()
    """Whom the replies go to, and what the agent hears, in order. None for what is no message to answer."""
