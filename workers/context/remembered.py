"""What is remembered for a turn, as Postgres tells it (`turn_memory`): JSON becomes `agents.api.Remembered`."""

import msgspec

from agents.api import Fact, Recalled, Remembered, Role


class _Fact(msgspec.Struct):
    text: str
    since_us: int


class _Entry(msgspec.Struct):
    value: str | bool


class _Hit(msgspec.Struct):
    role: Role
    text: str
    said_us: int


class _Recall(msgspec.Struct):
    hits: list[_Hit]


class _Memory(msgspec.Struct):
    summary: str | None
    profile: dict[str, _Entry]
    facts: list[_Fact]
    recall: _Recall | None


_decode = msgspec.json.Decoder(_Memory).decode


def read_memory(memory_json: str) -> Remembered:
    """Raises msgspec.MsgspecError for what cannot be read."""
    memory = _decode(memory_json)
    hits = memory.recall.hits if memory.recall else []
    return Remembered(
        summary=memory.summary,
        profile={name: entry.value for name, entry in memory.profile.items()},
        facts=tuple(Fact(fact.text, fact.since_us) for fact in memory.facts),
        recalled=tuple(Recalled(hit.role, hit.text, hit.said_us) for hit in hits),
    )
