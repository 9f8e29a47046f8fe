"""OpenAI, and every server that speaks its chat completions: one streamed call, as `agents.api.ChatModel` describes it.

Called by the turn's `call` stage. The SDK authenticates, sends and maps errors (`client.post`, its documented way to a
bare response); the events are decoded here, as one object per token is what its own reader costs most. Chat
completions rather than responses: compatible servers have it, and nothing of ours is stored at the provider.
"""

from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec
import openai

from agents.api import Completion, Finish, Headroom, Prompt
from workers.models import errors, headroom, sse, usage
from workers.models.endpoint import Endpoint, Incoming
from workers.models.http import absolute, end_user, open_client

PROVIDER: Final = "openai"
OFFICIAL_URL: Final = "https://api.openai.com/v1"
FAULTS: Final = errors.Faults(
    provider=PROVIDER,
    sdk=openai.OpenAIError,
    refused=openai.APIStatusError,
    unconnected=openai.APIConnectionError,
)

_FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "eos": "stop",  # some compatible servers name the token that ended it
    "length": "length",
    "content_filter": "content_filter",
}
_OTHER_LIMIT = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class _Reply:
    """What has arrived of one answer."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.request_id: str | None = None
        self.headroom: Headroom | None = None
        self.complete = False
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] = {}

    def add(self, data: bytes) -> str:
        """The text this event adds; empty for most others. Raises UpstreamError for an error inside the stream."""
        if data == b"[DONE]":
            self.complete = True
        return "" if self.complete else self._add(_decode_chunk(data))

    def _add(self, chunk: _Chunk) -> str:
        if chunk.error:
            raise errors.of_stream(PROVIDER, chunk.error, self.request_id)
        self.model = chunk.model or self.model
        self._usage = chunk.usage or self._usage
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self._finish_reason = choice.finish_reason or self._finish_reason
        if choice.delta is None:
            return ""
        if choice.delta.refusal:
            self._refusals.append(choice.delta.refusal)
        if choice.delta.content:
            self._texts.append(choice.delta.content)
        return choice.delta.content or ""

    def completion(self, prompt: Prompt, asked_model: str) -> Completion:
        """Raises UpstreamUnavailable when the stream ended without saying why it may."""
        if self._finish_reason is None:
            raise errors.cut_short(PROVIDER, self.request_id)
        finish: Finish | None = "refusal" if self._refusals else _FINISHES.get(self._finish_reason)
        if finish is None:
            raise errors.unexpected_end(PROVIDER, self._finish_reason, self.request_id)
        text = "".join(self._texts or self._refusals)
        counted, raw = usage.of_openai(self._usage, prompt, text, asked_model)
        return Completion(text, finish, counted, PROVIDER, self.model, self.request_id, raw, self.headroom)


class OpenAIModel:
    """`base_url` None is OpenAI itself. One instance per process; it shares its connections among all calls."""

    provider: str = PROVIDER

    def __init__(self, *, api_key: str, base_url: str | None = None, idle_timeout_s: float = 30.0) -> None:
        http_client = open_client(idle_timeout_s)
        self._client = openai.AsyncOpenAI(
            api_key=api_key, base_url=base_url or OFFICIAL_URL, max_retries=0, http_client=http_client
        )
        self._official = self._client.base_url.host == "api.openai.com"
        self._limit_names: dict[str, str] = {}
        # spelt out, as the SDK copies its defaults deeply for every call
        options = {"headers": {}, "max_retries": 0, "timeout": self._client.timeout}
        url = absolute(self._client.base_url, "chat/completions")
        self._endpoint = Endpoint(self._client, http_client, url, options)

    async def stream(
        self, prompt: Prompt, *, model: str, timeout_s: float, user: str | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        """See `ChatModel.stream`. A refusal's own words are not streamed; they are the completion's text."""
        reply = _Reply(model)
        try:
            request = self._send(self._body(prompt, model, user), reply)
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

    def _body(self, prompt: Prompt, model: str, user: str | None) -> dict[str, Any]:
        system = [{"role": "system", "content": prompt.system}] if prompt.system else []
        body: dict[str, Any] = {
            "model": model,
            "messages": system + [{"role": each.role, "content": each.content} for each in prompt.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            self._limit_name(model): prompt.max_tokens,
        }
        if prompt.json_schema is not None:
            schema = {"name": "reply", "schema": prompt.json_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        if user is not None:
            body["safety_identifier" if self._official else "user"] = end_user(user)
        return body

    def _limit_name(self, model: str) -> str:
        """OpenAI's newer models refuse `max_tokens`; elsewhere it is the name every server knows and obeys."""
        return self._limit_names.get(model) or ("max_completion_tokens" if self._official else "max_tokens")

    async def _send(self, body: dict[str, Any], reply: _Reply) -> Incoming:
        """A server that refuses the name of the limit (a proxy to newer models, say) is asked again with the other."""
        name = self._limit_name(body["model"])
        try:
            response = await self._endpoint.post(msgspec.json.encode(body))
        except openai.BadRequestError as error:
            if name not in (error.param or error.message):
                raise
            other = _OTHER_LIMIT[name]
            body[other] = body.pop(name)
            response = await self._endpoint.post(msgspec.json.encode(body))
            self._limit_names[body["model"]] = other
        reply.request_id = errors.request_id(response.headers)
        reply.headroom = headroom.of_openai(response.headers)
        return response
