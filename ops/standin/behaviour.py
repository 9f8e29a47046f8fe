"""How the stand-in behaves: rules that tests set over HTTP, the first that matches a call decides.

    POST /_behaviour {"latency_ms": 40, "reply": "{last}"}                    one rule for every call
    POST /_behaviour [{"match": "job 7", "faults": ["hang"]}, {}]             side by side; no match: the default

`match` is a substring of the last user message (of any text to embed), `model` a model's exact name. Faults are used up
in order, each `times` times, one a call; then the rule answers normally. A POST replaces all rules, used-up faults
included.
"""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from ops.standin.ask import Ask
from shared.errors import InvalidRequest

Finish = Literal["stop", "length", "refusal", "content_filter"]
FaultKind = Literal["status", "hang", "cut_stream", "end_early", "stall_stream", "stream_error", "malformed", "finish"]
_KINDS: Final = get_args(FaultKind)

Tokens = Annotated[int, Meta(ge=0, le=1_000_000)]
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Exactly one kind is set. A kind that needs no value may be written as its bare name: `"hang"`.

    `hang` never answers. The others strike within the reply: `cut_stream` closes the connection, `end_early` ends the
    response as if it were complete, without the terminal event, `stall_stream` falls silent and leaves it open,
    `stream_error` sends the provider's error event and `malformed` one that is not JSON.
    """

    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    finish: Finish | None = None
    hang: bool = False
    cut_stream: bool = False
    end_early: bool = False
    stall_stream: bool = False
    stream_error: bool = False
    malformed: bool = False
    times: Annotated[int, Meta(ge=1)] = 1
    retry_after_s: Annotated[float, Meta(ge=0)] | None = None
    """With `status`: the Retry-After header."""
    headers: dict[str, str] = {}
    """With `status`: more headers, e.g. `retry-after-ms`, `x-should-retry`."""
    code: str | None = None
    """With `status`: OpenAI's `error.code`, Anthropic's `error.details.error_code`."""
    after_tokens: Tokens | None = None
    """With a stream fault: where it strikes; half-way when not given."""

    @property
    def kind(self) -> FaultKind:
        return next(kind for kind in _KINDS if _is_set(getattr(self, kind)))

    @property
    def label(self) -> str:
        """Its name in the books: the status, or the kind."""
        return self.kind if self.status is None else str(self.status)


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1)]
    arguments: dict[str, Any] | str = {}
    """A string is sent as it is, valid JSON or not."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    model: str | None = None
    match: str | None = None
    latency_ms: Milliseconds = 0
    """Before any answer, errors included."""
    held: bool = False
    """Before any answer: until the rules are replaced or reset."""
    gather: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """Before any answer: so many calls must have been under way at once, of whatever rule."""
    ttft_ms: Milliseconds = 0
    """Between the head of a stream and its first token."""
    tokens_per_s: Annotated[float, Meta(gt=0)] | None = None
    reply: str | None = None
    """May contain {last} {previous} {count} {system} {model}."""
    output_tokens: Tokens | None = None
    """The reply is cut or padded to this many tokens, reasoning not included."""
    reasoning_tokens: Tokens = 0
    cached_tokens: Tokens = 0
    """Of the input, read from the prompt cache."""
    cache_write_tokens: Tokens = 0
    billed: tuple[Tokens, Tokens] | None = None
    """Input and output tokens of the bill, whatever was said: nothing, or more than was asked for."""
    tool_calls: list[ToolCall] = []
    headers: dict[str, str] = {}
    """Of every answer that is no error, e.g. `x-ratelimit-remaining-requests`."""
    dimensions: Annotated[int, Meta(ge=1, le=4096)] | None = None
    """Of embeddings, whatever was asked for."""
    nan_for: str | None = None
    """Embeddings of texts that contain it are no numbers."""
    faults: list[Fault] = []

    def covers(self, ask: Ask) -> bool:
        return (self.model is None or self.model == ask.model) and (
            self.match is None or self.match in ask.steering_text
        )


_DEFAULT = Rule()


class Behaviour:
    """The rules in force and the faults still to come."""

    def __init__(self, rules: list[Rule] | None = None) -> None:
        self.rules = rules or []
        self._to_come = [_unrolled(rule.faults) for rule in self.rules]
        self.replaced = asyncio.Event()
        """Set when these rules are in force no more."""

    def decide(self, ask: Ask) -> tuple[Rule, Fault | None]:
        """The rule for this call and the fault that strikes it; each decision uses one fault up."""
        for rule, to_come in zip(self.rules, self._to_come, strict=True):
            if rule.covers(ask):
                return rule, next(to_come, None)
        return _DEFAULT, None


def read(body: bytes) -> Behaviour:
    """Behaviour from a JSON rule or a list of rules.

    Raises InvalidRequest: 422 naming every unknown field, or else the first wrong value; 400 when it is not JSON.
    """
    try:
        given = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"behaviour is not JSON: {error}") from error
    rules = [_spelled_out(rule) for rule in (given if isinstance(given, list) else [given])]
    _refuse([fault for index, rule in enumerate(rules) for fault in _unknown_fields(rule, f"[{index}]")])
    try:
        read_rules = msgspec.convert(rules, list[Rule])
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error), status=422) from error
    _refuse(list(_ambiguous_faults(read_rules)))
    return Behaviour(read_rules)


def _refuse(faults: list[dict[str, str]]) -> None:
    if faults:
        raise InvalidRequest("; ".join(f"{fault['field']}: {fault['message']}" for fault in faults), faults=faults)


def _unrolled(faults: list[Fault]) -> Iterator[Fault]:
    return (fault for fault in faults for _ in range(fault.times))


def _spelled_out(rule: Any) -> Any:
    """`"hang"` stands for `{"hang": true}`."""
    if not isinstance(rule, dict) or not isinstance(faults := rule.get("faults"), list):
        return rule
    return rule | {"faults": [{fault: True} if isinstance(fault, str) else fault for fault in faults]}


def _unknown_fields(given: Any, where: str, known: type[msgspec.Struct] = Rule) -> Iterator[dict[str, str]]:
    """msgspec stops at the first unknown field; a person wants them all."""
    if not isinstance(given, dict):
        return
    unknown = (name for name in given if name not in known.__struct_fields__)
    yield from ({"field": f"{where}.{name}", "message": "unknown field"} for name in unknown)
    for name, inner in (("faults", Fault), ("tool_calls", ToolCall)) if known is Rule else ():
        items = given.get(name)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            yield from _unknown_fields(item, f"{where}.{name}[{index}]", inner)


def _ambiguous_faults(rules: list[Rule]) -> Iterator[dict[str, str]]:
    for index, rule in enumerate(rules):
        for place, fault in enumerate(rule.faults):
            if sum(_is_set(getattr(fault, kind)) for kind in _KINDS) != 1:
                message = f"give exactly one of {', '.join(_KINDS)}"
                yield {"field": f"[{index}].faults[{place}]", "message": message}


def _is_set(value: object) -> bool:
    return value is not None and value is not False
