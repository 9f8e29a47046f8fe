"""What one call embeds: texts of many jobs, which of them go together, and who pays for what.

Called by `writer`. Pure: no I/O.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from workers.embeddings.api import Embedder


class Payer(NamedTuple):
    """Whose budgets a text is charged to, and how the ledger names it."""

    tenant: str
    user_id: str
    conversation_id: str
    agent: str
    domain: str | None
    feature: str | None


class Item(NamedTuple):
    """One claimed text. `version` tells whether it has changed meanwhile."""

    item_id: int
    version: int
    payer: Payer
    text: str
    attempts: int


def batches(items: Sequence[Item], embedder: Embedder) -> Iterator[list[Item]]:
    """Parts that one call may take: by number of texts and by tokens."""
    part: list[Item] = []
    tokens = 0
    for item in items:
        more = embedder.count(item.text)
        if part and (len(part) >= embedder.max_texts or tokens + more > embedder.max_batch_tokens):
            yield part
            part, tokens = [], 0
        part.append(item)
        tokens += more
    if part:
        yield part


def by_text(items: Iterable[Item]) -> Mapping[str, list[Item]]:
    """Each text once, with the items that have it: the first one's payer pays."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.text, []).append(item)
    return found
