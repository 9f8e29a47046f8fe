"""Anthropic's messages API: one streamed call, as `agents.api.ChatModel` describes it.

Called by the turn's `call` stage. The SDK authenticates, sends and maps errors (`client.post`, its documented way to a
bare response); the events are decoded here, as one object per token is what its own reader costs most. The system
prompt is marked for the provider's cache: it is the part that all conversations of an agent share.
"""

from collections.abc import AsyncGenerator
from itertools import dropwhile
from typing import Any, Final

import anthropic
import msgspec

from agents.api import Completion, Finish, Headroom, Prompt
from workers.models import errors, headroom, sse, usage
from workers.models.endpoint import Endpoint, Incoming
from workers.models.http import absolute, end_user, open_client

PROVIDER: Final = "anthropic"
OFFICIAL_URL: Final = "https://api.anthropic.com"
FAULTS: Final = errors.Faults(
    provider=PROVIDER,
    sdk=anthropic.AnthropicError,
    refused=anthropic.APIStatusError,
    unconnected=anthropic.APIConnectionError,
)

_FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


class _Message(msgspec.Struct):
    model: str | None = None
    usage: dict[str, Any] | None = None


class _Delta(msgspec.Struct):
    """Of a block (`text`) or of the message (`stop_reason`)."""

    text: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str
    message: _Message | None = None
    content_block: _Delta | None = None
    delta: _Delta | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class _Reply:
    """What has arrived of one answer."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.request_id: str | None = None
        self.headroom: Headroom | None = None
        self.complete = False
        self._texts: list[str] = []
        self._stop_reason: str | None = None
        self._usage: dict[str, Any] = {}

    def add(self, data: bytes) -> str:
        """The text this event adds; empty for most others. Raises UpstreamError for an error inside the stream."""
        return "" if self.complete else self._add(_decode_event(data))

    def _add(self, event: _Event) -> str:
        match event.type:
            case "content_block_delta" | "content_block_start":
                return self._add_text(event.delta or event.content_block)
            case "message_start" if event.message is not None:
                self.model = event.message.model or self.model
                self._add_usage(event.message.usage)
            case "message_delta":
                self._stop_reason = event.delta.stop_reason if event.delta else None
                self._add_usage(event.usage)
            case "message_stop":
                self.complete = True
            case "error":
                raise errors.of_stream(PROVIDER, event.error, self.request_id)
        return ""

    def _add_text(self, delta: _Delta | None) -> str:
        if delta is None or not delta.text:
            return ""
        self._texts.append(delta.text)
        return delta.text

    def _add_usage(self, counts: dict[str, Any] | None) -> None:
        self._usage.update((name, value) for name, value in (counts or {}).items() if value is not None)

    def completion(self, prompt: Prompt, asked_model: str) -> Completion:
        """Raises UpstreamUnavailable when the stream ended without saying why it may."""
        if not self.complete or self._stop_reason is None:
            raise errors.cut_short(PROVIDER, self.request_id)
        finish = _FINISHES.get(self._stop_reason)
        if finish is None:  # `tool_use`, `pause_turn`: no tools are offered
            raise errors.unexpected_end(PROVIDER, self._stop_reason, self.request_id)
        text = "".join(self._texts)
        counted, raw = usage.of_anthropic(self._usage, prompt, text, asked_model)
        return Completion(text, finish, counted, PROVIDER, self.model, self.request_id, raw, self.headroom)


class AnthropicModel:
    """`base_url` None is Anthropic itself. One instance per process; it shares its connections among all calls."""

    provider: str = PROVIDER

    def __init__(self, *, api_key: str, base_url: str | None = None, idle_timeout_s: float = 30.0) -> None:
        http_client = open_client(idle_timeout_s)
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=base_url or OFFICIAL_URL, max_retries=0, http_client=http_client
        )
        # spelt out, as the SDK copies its defaults deeply for every call
        options = {"headers": {}, "max_retries": 0}
        url = absolute(self._client.base_url, "v1/messages")
        self._endpoint = Endpoint(self._client, http_client, url, options)

    async def stream(
        self, prompt: Prompt, *, model: str, timeout_s: float, user: str | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        """See `ChatModel.stream`."""
        reply = _Reply(model)
        try:
            request = self._send(_body(prompt, model, user), reply)
            async with sse.Events(request, timeout_s=timeout_s) as events:
                async for datas in events:
                    text, fault = sse.said(datas, reply.add)
                    if text:
                        yield text
                    if fault is not None:
                        raise fault
                    if reply.complete:
                        await events.drain()
                        break
        except FAULTS.known as error:
            raise FAULTS.translate(error) from error
        yield reply.completion(prompt, model)

    async def aclose(self) -> None:
        await self._client.close()

    async def _send(self, body: dict[str, Any], reply: _Reply) -> Incoming:
        response = await self._endpoint.post(msgspec.json.encode(body))
        reply.request_id = errors.request_id(response.headers)
        reply.headroom = headroom.of_anthropic(response.headers)
        return response


def _body(prompt: Prompt, model: str, user: str | None) -> dict[str, Any]:
    """The API wants the first message to be the user's; a window of recent messages may begin with a reply.

    The cache mark is on the system prompt alone: it is the longest part that repeats. One on the messages would pay
    for a write (1.25 × input) in every turn and miss in most, as the window of recent messages moves on.
    """
    messages = dropwhile(lambda message: message.role != "user", prompt.messages)
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": prompt.max_tokens,
        "messages": [{"role": each.role, "content": each.content} for each in messages],
        "stream": True,
    }
    if prompt.system:
        body["system"] = [{"type": "text", "text": prompt.system, "cache_control": {"type": "ephemeral"}}]
    if prompt.json_schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": prompt.json_schema}}
    if prompt.temperature is not None:
        body["temperature"] = prompt.temperature
    if user is not None:
        body["metadata"] = {"user_id": end_user(user)}
    return body
