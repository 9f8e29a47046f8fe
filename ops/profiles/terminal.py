"""What `switchboard users` does: open Postgres, act, print."""

from collections.abc import Awaitable, Callable, Sequence

from ops.profiles.asks import FactBody, ProfileBody
from ops.profiles.books import ProfileBooks
from ops.profiles.records import Profile
from ops.terminal.output import Printer, note
from ops.terminal.session import postgres, said, user
from ops.terminal.typed import checked, patch_of
from shared.config import Settings

_ENTRIES = ("entry", "value", "by", "at", "sources")
_FACTS = ("topic", "text", "valid_from", "valid_to", "told_by", "conversation_id", "id")


def run(settings: Settings, who: tuple[str, str], action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> int:
    """The action's exit code; `who` is tenant and user. Raises SwitchboardError for what is not about the request."""

    async def act() -> int:
        async with postgres(settings) as pool:
            return await action(Terminal(ProfileBooks(pool), who, Printer(json=json)))

    return said(act)


class Terminal:
    def __init__(self, books: ProfileBooks, who: tuple[str, str], printer: Printer) -> None:
        self._books, self._who, self._printer = books, who, printer

    async def show_profile(self) -> int:
        return self._print(await self._books.profile(*self._who))

    async def set_profile(self, assignments: Sequence[str]) -> int:
        body = checked(ProfileBody, patch_of(assignments))
        return self._print(await self._books.change_profile(*self._who, body, user()))

    async def erase_profile(self) -> int:
        return self._print(await self._books.erase_profile(*self._who, user()))

    async def list_facts(self, *, past: bool) -> int:
        found = await self._books.facts(*self._who, past=past)
        self._printer.rows([fact.resource() for fact in found], _FACTS)
        return 0

    async def set_fact(self, topic: str, text: str) -> int:
        asked = checked(FactBody, {"text": text})
        fact = await self._books.put_fact(*self._who, topic, asked.text, user())
        self._printer.rows([fact.resource()], _FACTS)
        return 0

    async def erase_facts(self, topic: str | None) -> int:
        erased = await self._books.erase_facts(*self._who, topic)
        note(f"{erased} erased")
        return 0

    def _print(self, profile: Profile) -> int:
        entries = profile.resource()["entries"]
        self._printer.rows([{"entry": name, **entry} for name, entry in entries.items()], _ENTRIES)
        return 0
