"""From what was said to what is remembered: pieces of messages, and chunks of neighbouring pieces. Pure.

A chunk has whole pieces of one sitting, about 150 tokens of them; the last one of a conversation grows with the next
turn. Its text, which SQL makes (`chunk_text`), begins with the piece before it, so that an answer has its question with
it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from workers.memory.splitting import parts

CHUNK_TOKENS = 150
SITTING_GAP_US = 3_600_000_000
"""A conversation that rests for an hour goes on as another sitting: what is said then is no neighbour of what was."""
GROWING_S = 60
"""How long a chunk that may still grow waits for its vector; its pieces have theirs at once."""

_ASKS = re.compile(r"[?؟？]\s*(\[[^\]]*\]\s*)?$")
"""A question at the end, but for a note in brackets (a picture that came with it)."""


class Said(msgspec.Struct, frozen=True):
    """A message."""

    message: str
    seq: int
    role: str
    speaker: str
    body: str
    said_us: int


class Chunk(msgspec.Struct):
    """A chunk as it is being filled; `seq` and `part` are its first piece's."""

    id: int
    seq: int
    part: int
    said_us: int
    tokens: int = 0
    previous: int | None = None
    seq_to: int = 0


class Last(msgspec.Struct, frozen=True):
    """The last piece that a conversation has in memory."""

    id: int
    said_us: int
    chunk: Chunk


class Conversation(msgspec.Struct, frozen=True):
    """What waits in the outbox for one conversation, oldest first, and where its memory ends."""

    tenant: str
    user: str | None
    id: str
    outbox: list[int]
    said: list[Said]
    last: Last | None = None


class Batch(msgspec.Struct, frozen=True):
    """As `take_memory_outbox` gives it; ids from `block` on are free."""

    block: int
    conversations: list[Conversation]


@dataclass
class Taken:
    """As `write_memory` takes it."""

    pieces: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    outbox: list[int] = field(default_factory=list)


def take(batch: Batch) -> Taken:
    """Every message of a batch as pieces and chunks."""
    taken = Taken()
    ids = iter(range(batch.block, batch.block + 2**24))
    for conversation in batch.conversations:
        _take_one(conversation, ids, taken)
        taken.outbox += conversation.outbox
    return taken


def _take_one(conversation: Conversation, ids: Iterator[int], taken: Taken) -> None:
    head = {"tenant": conversation.tenant, "user": conversation.user, "conversation": conversation.id}
    last, changed = conversation.last, dict[int, Chunk]()
    for said in conversation.said:
        for part, (start, end, tokens) in enumerate(parts(said.body)):
            near = last if last and said.said_us - last.said_us <= SITTING_GAP_US else None
            chunk = _chunk_for(tokens, near, ids, said, part)
            chunk.tokens += tokens
            chunk.seq_to = said.seq
            changed[chunk.id] = chunk
            item_id = next(ids)
            piece = {
                **head,
                "id": item_id,
                "message": said.message,
                "seq": said.seq,
                "part": part,
                "chunk": chunk.id,
                "previous": near.id if near else None,
                "role": said.role,
                "speaker": said.speaker,
                "asks": _ASKS.search(said.body[start:end]) is not None,
                "char_from": start + 1,
                "chars": end - start,
                "tokens": tokens,
                "said_us": said.said_us,
                "wait_s": 0,
            }
            taken.pieces.append(piece)
            last = Last(item_id, said.said_us, chunk)
    growing = last.chunk.id if last else None
    for chunk in changed.values():
        wait_s = GROWING_S if chunk.id == growing else 0
        taken.chunks.append({**head, **msgspec.structs.asdict(chunk), "wait_s": wait_s})


def _chunk_for(tokens: int, near: Last | None, ids: Iterator[int], said: Said, part: int) -> Chunk:
    """The last one of the sitting while there is room, else a new one."""
    if near and near.chunk.tokens + tokens <= CHUNK_TOKENS:
        return near.chunk
    return Chunk(next(ids), said.seq, part, said.said_us, previous=near.chunk.id if near else None)
