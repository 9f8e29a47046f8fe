"""Which prompts are the same question. Called by the turn before every model call.

Safe by construction: only a prompt that equals `system_prompt` plus the user's message, field by field, is a question
at all. History, a profile, metadata, tools, or whatever a prompt will have one day make it another prompt, and then no
answer is looked up or kept. The key holds everything that decides what a model says: two askers share an answer only
where both would have sent the same, within one tenant of one deployment.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass

import msgspec

from agents.api import Agent, Message, Prompt

KEY_VERSION = 1
"""Another number, another cache: to be raised when the meaning of the key or of an answer changes."""

_LITERAL = re.compile(r"[\n\"`]")
_TRAILING = re.compile(r"[^\S\n]+(?=\n)")


@dataclass(frozen=True, slots=True)
class Question:
    tenant: str
    digest: str
    agent: str
    ttl_s: int
    """Older answers are none."""


def question_of(
    agent: Agent, prompt: Prompt, *, text: str, deployment: str, tenant: str, ttl_s: int
) -> Question | None:
    """What `prompt` asks, where `text` is the user's message; None when its answer is nobody else's."""
    if ttl_s <= 0 or not agent.cache:
        return None
    plain = Prompt(agent.system_prompt, (Message("user", text),), prompt.max_tokens, prompt.temperature)
    if prompt != plain:
        return None
    parts = (
        KEY_VERSION,
        deployment,
        tenant,
        agent.id,
        agent.system_prompt,
        agent.models,  # the ones wanted: whichever answers, it answers this question
        prompt.max_tokens,
        prompt.temperature,
        normalised(text),
    )
    # A JSON array tells its parts apart whatever they hold: no two lists of parts are the same text.
    return Question(tenant, hashlib.sha256(msgspec.json.encode(parts)).hexdigest(), agent.id, ttl_s)


def normalised(text: str) -> str:
    """`text` without differences that cannot mean anything: how letters are composed, ends of lines, blanks around.

    Blanks inside are one where they cannot be part of code or of a quotation: in one line without quotes or backticks.
    Case, punctuation and NFKC's likenesses stay: Polish is not polish, and 5² is not 52.
    """
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()
    if _LITERAL.search(text):
        return _TRAILING.sub("", text)
    return " ".join(text.split())
