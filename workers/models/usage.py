"""The providers' accounts of a call, in our terms: `input_tokens` is always the total.

Used by the adapters at the end of a stream. OpenAI's `prompt_tokens` includes cached tokens, Anthropic's
`input_tokens` excludes them: mixing the two up bills cached tokens twice. An explicit 0 is an account; only what is
missing is counted with the tokenizer, and then `raw_usage` says `"estimated": true`.
"""

from collections.abc import Mapping
from typing import Any

from agents.api import Prompt
from shared.jobs import Usage
from workers.ledger import tokens

Raw = Mapping[str, Any]


def of_openai(raw: Raw, prompt: Prompt, reply: str, model: str) -> tuple[Usage, Raw]:
    """From the `usage` of the last chunk; empty where a compatible server sent none."""
    return _usage(
        raw,
        (prompt, reply, model),
        total_input=_number(raw, "prompt_tokens"),
        output=_number(raw, "completion_tokens"),
        cached=_number(raw, "prompt_tokens_details", "cached_tokens"),
        cache_write=_number(raw, "prompt_tokens_details", "cache_write_tokens"),
        reasoning=_number(raw, "completion_tokens_details", "reasoning_tokens"),
    )


def of_anthropic(raw: Raw, prompt: Prompt, reply: str, model: str) -> tuple[Usage, Raw]:
    """From `message_start.usage` overwritten by each `message_delta.usage`, which is cumulative."""
    plain = _number(raw, "input_tokens")
    cached = _number(raw, "cache_read_input_tokens")
    cache_write = _number(raw, "cache_creation_input_tokens")
    return _usage(
        raw,
        (prompt, reply, model),
        total_input=None if plain is None else plain + (cached or 0) + (cache_write or 0),
        output=_number(raw, "output_tokens"),
        cached=cached,
        cache_write=cache_write,
        reasoning=_number(raw, "output_tokens_details", "thinking_tokens"),
    )


def _usage(
    raw: Raw,
    asked: tuple[Prompt, str, str],
    *,
    total_input: int | None,
    output: int | None,
    cached: int | None,
    cache_write: int | None,
    reasoning: int | None,
) -> tuple[Usage, Raw]:
    prompt, reply, model = asked
    if total_input is None or output is None:
        raw = {**raw, "estimated": True}
        total_input = tokens.count_prompt(prompt, model) if total_input is None else total_input
        output = tokens.count(reply, model) if output is None else output
    cached = min(cached or 0, total_input)
    usage = Usage(
        input_tokens=total_input,
        output_tokens=output,
        cached_tokens=cached,
        cache_write_tokens=min(cache_write or 0, total_input - cached),
        reasoning_tokens=min(reasoning or 0, output),
    )
    return usage, raw


def _number(raw: Any, *path: str) -> int | None:
    for name in path:
        raw = raw.get(name) if isinstance(raw, Mapping) else None
    return raw if isinstance(raw, int) and raw >= 0 else None
