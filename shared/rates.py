"""What admission asks before it lets a message in: exact sliding windows, and budgets that may be spent.

The ingress makes the list (`ingress.limits`), `admit.lua` looks at all of it and enters every window or none; the
answer says how each window stands. A window holds at most `limit` messages in any `length_s` of the server's clock.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from shared.budgets import Scope

Level = Literal["user", "tenant", "global", "endpoint", "tier", "address"]


class Window(msgspec.Struct, frozen=True):
    level: Level
    key: str
    """`keys.rate(…)`."""
    limit: int
    """0 lets nothing in."""
    length_s: int


class Standing(msgspec.Struct, frozen=True):
    """A window after it was looked at, or entered."""

    window: Window
    remaining: int
    left_us: int
    """Until one more fits; exactly, by the server's clock."""

    @property
    def left_s(self) -> int:
        """Whole seconds, never too few."""
        return -(-self.left_us // 1_000_000)


class Limits(msgspec.Struct, frozen=True):
    """Those of one message. Budgets without a limit are left out: nothing is to be asked of them."""

    windows: tuple[Window, ...] = ()
    budgets: tuple[Scope, ...] = ()

    @property
    def keys(self) -> list[str]:
        return [window.key for window in self.windows] + [scope.key for scope in self.budgets]

    @property
    def arguments(self) -> list[str | int]:
        """As `admit.lua` reads them."""
        found: list[str | int] = [len(self.windows)]
        for window in self.windows:
            found += (window.limit, window.length_s * 1_000_000)
        for scope in self.budgets:
            nano_usd, tokens = scope.most_nano_usd, scope.most_tokens
            found += ("" if nano_usd is None else nano_usd, "" if tokens is None else tokens)
        return found

    def standings(self, rooms: Sequence[int]) -> tuple[Standing, ...]:
        """From the script's answer: room and µs of each window in turn."""
        if not self.windows:
            return ()
        return tuple([Standing(*each) for each in zip(self.windows, rooms[::2], rooms[1::2], strict=True)])


UNLIMITED = Limits()
