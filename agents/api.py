"""All an agent author needs to know: what an agent is given, what it may ask for, what it answers.

An agent is one file in this package with one subclass of `Agent`; the registry finds it. Agents are pure: they never
see Redis, Postgres or a model SDK. What they need from the world they ask of `Context`, whose parts are implemented
by the workers. Provider adapters implement `ChatModel`.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from shared.jobs import Usage
from shared.wire import Policy

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, oldest first where there are several."""

    role: Role
    content: str
    group: str | None = None
    """Neighbours of one group (a tool's call and what it answered) are shown together or not at all."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something the user told, and since when it holds (Unix µs)."""

    text: str
    since_us: int


@dataclass(frozen=True, slots=True)
class Recalled:
    """Something that was said before (Unix µs), in this conversation or another one of the same user."""

    role: Role
    text: str
    said_us: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known beyond the recent messages. It is data, never an instruction: a prompt carries it as it is, and it
    is delimited and packed for the model that is asked."""

    summary: str | None = None
    """Of the conversation, up to where its recent messages begin."""
    profile: Mapping[str, str | bool] = field(default_factory=dict)
    """`name`, `language` (such as `de`), `prefers_concise`: those that are known."""
    facts: tuple[Fact, ...] = ()
    """The newest first."""
    recalled: tuple[Recalled, ...] = ()
    """What fits the message best, first."""

    def __bool__(self) -> bool:
        return bool(self.summary or self.profile or self.facts or self.recalled)


NOTHING = Remembered()


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked. `max_tokens` bounds the reply and is always sent to the provider.

    What does not fit the deployment's bound of a prompt is left out when it is sent: of what is remembered the least
    fitting, of the messages the oldest. The system prompt and the last message stay; that one is cut in its middle when
    it is too long by itself.
    """

    system: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float | None = None
    remembered: Remembered = NOTHING
    """Stands before the last message."""
    json_schema: Mapping[str, Any] | None = None
    """The reply is to be JSON of this schema, where the provider can promise that."""


Routing = Literal["fixed", "auto"]
Finish = Literal["stop", "length", "refusal", "content_filter"]


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a provider says may still be asked of it: kind (`requests`, `tokens`, `input` or `output` tokens) → how much
    is left, and for how many seconds that holds, from `heard_s` (monotonic) on."""

    left: Mapping[str, tuple[int, float]]
    heard_s: float


@dataclass(frozen=True, slots=True)
class Completion:
    """How a model call ended, with the provider's own account of it."""

    text: str
    finish: Finish
    usage: Usage
    provider: str
    model: str
    """The model the provider says it used; the ledger keeps both this and the one asked for."""
    request_id: str | None = None
    raw_usage: Mapping[str, Any] = field(default_factory=dict)
    """The provider's usage object, unchanged, so that a row can be priced again later."""
    headroom: Headroom | None = None


class ChatModel(Protocol):
    """One provider. Implemented in `workers.models`."""

    provider: str

    def stream(
        self, prompt: Prompt, *, model: str, timeout_s: float, user: str | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        """Pieces of text as they come, then exactly one Completion.

        `timeout_s` bounds the whole call. `user` is an opaque end-user id for the provider's abuse monitoring.
        Raises UpstreamError (never an SDK's own class); a stream that ends without its terminal event raises
        UpstreamUnavailable. Closing the generator (`contextlib.aclosing`) aborts the call at once.
        """
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """The user's message and where it came from."""

    text: str
    """What is to be answered: several messages in one where the policy is `merge`, a blank line between them."""
    conversation_id: str
    user_id: str | None
    tenant: str
    metadata: Mapping[str, Any]
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """What the user is told. `incomplete` says why it is cut short, e.g. `max_output_tokens`."""

    text: str
    incomplete: str | None = None


@dataclass(frozen=True, slots=True)
class FlowStep:
    """A person at a form inside a messenger (a WhatsApp Flow) needs the next screen."""

    action: Literal["INIT", "data_exchange", "BACK"]
    """The form was opened, a screen was filled in, or left backwards."""
    screen: str | None
    """The one that was shown; None when the form is opened."""
    data: Mapping[str, Any]
    """What was filled in."""
    token: str
    """The `flow_token` that the form was sent with; `<user id>:<anything>` says whose it is."""
    tenant: str


@dataclass(frozen=True, slots=True)
class Screen:
    """What is shown next, by its name in the form's definition. `SUCCESS` ends the form; its `data` is then
    `{"extension_message_response": {"params": {…}}}`, which comes back as a message `[form] …`."""

    name: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FlowOver:
    """The form cannot be continued; the message is shown to the person."""

    message: str = "This form is not available any more."


class Context(Protocol):
    """What an agent may use while it answers one turn."""

    @property
    def history(self) -> tuple[Message, ...]:
        """Recent messages of this conversation, oldest first, without the current one."""
        ...

    @property
    def remembered(self) -> Remembered:
        """What is known beyond them, for agents with `memory`."""
        ...

    @property
    def max_tokens(self) -> int:
        """The bound of a reply where the agent sets none of its own."""
        ...

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask the model this agent's policy chooses. Streams to the caller, counts and books every call.

        Raises UpstreamError when the provider fails and AgentError on a refusal; an agent lets both pass.
        """
        ...


class Agent:
    """Base of every agent. Class attributes are its settings; override `prompt` or `answer` for behaviour."""

    id: ClassVar[str]
    """Name in URLs and books: lower-case letters, digits, `-`."""
    label: ClassVar[str]
    description: ClassVar[str] = ""
    system_prompt: ClassVar[str]
    models: ClassVar[tuple[str, ...]] = ("openai:gpt-5.4-mini", "anthropic:claude-haiku-4-5")
    """`provider:model`, best first. Those whose provider has no key are passed over; one that fails or is down leaves
    the turn to the next one."""
    routing: ClassVar[Routing] = "fixed"
    """`fixed`: the first of `models` that is up. `auto`: the cheapest first for simple questions and large prompts."""
    prefer_quality: ClassVar[bool] = False
    """With `auto`: a complex question goes to the best model however large its prompt is."""
    degraded_reply: ClassVar[str | None] = None
    """What users are told when no model may or can answer; None takes the deployment's, "none" lets the turn fail."""
    memory: ClassVar[bool] = False
    """Whether what was said is kept for later recall, and what is known of the user shown to the model."""
    greeting: ClassVar[str | None] = None
    """Stands before the first reply to a user, once; a tenant's own goes before it."""
    history_messages: ClassVar[int] = 10
    """Recent messages given to the model; 0 for a stateless agent."""
    max_tokens: ClassVar[int | None] = None
    """Bound of a reply; None takes the deployment's default."""
    temperature: ClassVar[float | None] = None
    timeout_s: ClassVar[float] = 120.0
    """Bound of one attempt."""
    cache: ClassVar[bool] = True
    """Whether the same question may get the same answer again, for some minutes and within one tenant. Only a prompt
    of nothing but `system_prompt` and the user's message is the same question: what a prompt adds (history, a name, the
    date) is never shared. Set it to False where each answer must be a new one."""
    queue: ClassVar[str] = "default"
    """Queue its jobs wait in; give an agent its own to scale its workers alone."""

    policy: ClassVar[Policy] = "queue"
    """What becomes of a message whose conversation is busy, unless the caller says: `queue` it, `merge` the pending
    ones into one question, `interrupt` what is being answered, or `reject` it."""
    merge_window_s: ClassVar[float] = 2.0
    """With `merge`: how long a message waits for another one before it is answered; at most 10 s altogether."""

    def prompt(self, turn: Turn, ctx: Context) -> Prompt:
        """The question to the model: system prompt, recent messages, what is remembered, then the user's message."""
        return Prompt(
            system=self.system_prompt,
            messages=(*ctx.history, Message("user", turn.text)),
            max_tokens=self.max_tokens or ctx.max_tokens,
            temperature=self.temperature,
            remembered=ctx.remembered,
        )

    def flow(self, step: FlowStep) -> Screen | FlowOver:
        """The next screen of a form. The person's phone waits: it is called in the ingress, in a thread, without model,
        memory or any other part of the world, and must take far less than a second."""
        return FlowOver()

    async def answer(self, turn: Turn, ctx: Context) -> Reply:
        """One model call with recent messages. Override for anything cleverer."""
        completion = await ctx.complete(self.prompt(turn, ctx))
        return Reply(completion.text, "max_output_tokens" if completion.finish == "length" else None)
