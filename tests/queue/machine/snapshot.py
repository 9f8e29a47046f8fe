"""Everything a Redis database holds, as of one instant, in plain Python values that can be compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from shared import keys

LOOK = """
local readers = {
  string = { 'GET' }, hash = { 'HGETALL' }, list = { 'LRANGE', 0, -1 }, set = { 'SMEMBERS' },
  zset = { 'ZRANGE', 0, -1, 'WITHSCORES' }, stream = { 'XRANGE', '-', '+' },
}
local entries = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local read = readers[kind]
  local value = redis.call(read[1], key, unpack(read, 2))
  entries[#entries + 1] = { key, kind, value, redis.call('PEXPIRETIME', key) }
end
local t = redis.call('TIME')
return { t[1] * 1000 + math.floor(t[2] / 1000), entries }
"""
"""Returns {Unix ms, {key, type, value, Unix ms of its expiry (-1: none)}...}; every reader's reply is flat text."""


class Entry(NamedTuple):
    kind: str
    value: Any
    """str, dict (hash: text, zset: float), list, set, or for a stream the list of (entry id, fields)."""
    expires_ms: int


@dataclass(frozen=True)
class Snapshot:
    """The database at `now_ms`. Times leave here as if `pass_time` had never moved them: they can be compared."""

    now_ms: int
    entries: dict[str, Entry]
    passed_ms: int

    @classmethod
    def read(cls, now_ms: int, raw: list[Any], passed_ms: int) -> "Snapshot":
        found = {_text(key): Entry(_text(kind), _VALUES[_text(kind)](value), at) for key, kind, value, at in raw}
        return cls(now_ms + passed_ms, found, passed_ms)

    def times(self, key: str) -> dict[str, float]:
        """Member → time, a running job's negated."""
        flat: dict[str, float] = self._value(key, {})
        return {member: self.moved(score) for member, score in flat.items()}

    def moved(self, score: float) -> float:
        """A moment as it would read without `pass_time`."""
        if abs(score) < 1e12:  # «at once», not a moment
            return score
        return score + self.passed_ms if score > 0 else score - self.passed_ms

    def fields(self, key: str) -> dict[str, str]:
        found: dict[str, str] = self._value(key, {})
        return found

    def items(self, key: str) -> list[str]:
        found: list[str] = self._value(key, [])
        return found

    def members(self, key: str) -> set[str]:
        found: set[str] = self._value(key, set())
        return found

    def text(self, key: str) -> str | None:
        found: str | None = self._value(key, None)
        return found

    def ended(self) -> list[tuple[str, dict[str, str]]]:
        found: list[tuple[str, dict[str, str]]] = self._value(keys.ENDED, [])
        return found

    def under(self, prefix: str) -> dict[str, Entry]:
        """Keys that start with `prefix`, without it."""
        return {key.removeprefix(prefix): entry for key, entry in self.entries.items() if key.startswith(prefix)}

    def naming(self, job_id: str) -> Iterator[str]:
        """Keys that belong to a job or name it, of those that stay for good."""
        for key, entry in self.entries.items():
            if entry.expires_ms == -1 and (job_id in key or (key != keys.ENDED and job_id in _members(entry))):
                yield key

    def _value(self, key: str, default: Any) -> Any:
        entry = self.entries.get(key)
        return default if entry is None else entry.value


def difference(before: Snapshot, after: Snapshot) -> dict[str, tuple[Entry | None, Entry | None]]:
    """What changed: key → (before, after)."""
    both = before.entries.keys() | after.entries.keys()
    pairs = {key: (before.entries.get(key), after.entries.get(key)) for key in both}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _members(entry: Entry) -> Any:
    return entry.value if entry.kind in ("zset", "hash", "list", "set") else ()


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _pairs(flat: list[bytes]) -> dict[str, str]:
    texts = [_text(part) for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


_VALUES: dict[str, Any] = {
    "string": _text,
    "hash": _pairs,
    "zset": lambda flat: {member: float(score) for member, score in _pairs(flat).items()},
    "list": lambda flat: [_text(part) for part in flat],
    "set": lambda flat: {_text(part) for part in flat},
    "stream": lambda entries: [(_text(at), _pairs(fields)) for at, fields in entries],
}
