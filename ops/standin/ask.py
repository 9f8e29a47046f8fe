"""What a caller asked for, in words that fit every dialect.

A dialect reads its own wire format into an `Ask`; replies, behaviour and books look at nothing else.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from shared.errors import CallerError

Provider = Literal["openai", "anthropic"]
Role = Literal["system", "user", "assistant", "tool"]


class Unreadable(CallerError):
    """The request is not one the provider would accept: its 400, in its own shape. `reason` is OpenAI's `code`."""

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Said:
    """One message, as text. A tool's result has the role `tool` in every dialect."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Ask:
    model: str
    said: tuple[Said, ...]
    """The conversation, oldest first, without system messages."""
    input_tokens: int
    system: str = ""
    max_tokens: int | None = None
    stream: bool = False
    wants_tools: bool = False
    """Tools are offered and not forbidden."""
    inputs: bool = False
    """`said` are texts by themselves, no conversation."""
    wants_json: bool = False
    """The reply is to be JSON."""
    extras: dict[str, Any] = field(default_factory=dict)
    """What only the dialect itself understands, e.g. request fields that it echoes."""

    @property
    def user_texts(self) -> list[str]:
        return [message.text for message in self.said if message.role == "user"]

    @property
    def last_user_text(self) -> str:
        return next((message.text for message in reversed(self.said) if message.role == "user"), "")

    @property
    def steering_text(self) -> str:
        """What rules are matched against."""
        return "\n".join(self.user_texts) if self.inputs else self.last_user_text

    @property
    def tool_result(self) -> str | None:
        """Text of the last message, when a tool said it."""
        return self.said[-1].text if self.said and self.said[-1].role == "tool" else None
