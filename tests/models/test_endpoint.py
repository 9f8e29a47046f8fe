"""After an SDK's first request, those in its form: the same bytes, and what goes wrong is still the SDK's to say."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.conftest import Eventually
from tests.models.conftest import KEY, Scripted, answer
from workers.models import http
from workers.models.endpoint import Endpoint, Incoming
from workers.models.http import absolute, open_client
from workers.models.transport import Answer

MODULES: dict[str, Any] = {"openai": openai, "anthropic": anthropic}
SDKS: dict[str, Any] = {"openai": openai.AsyncOpenAI, "anthropic": anthropic.AsyncAnthropic}
PATHS = {"openai": "chat/completions", "anthropic": "v1/messages"}
BODIES = [b'{"n":1}', b'{"n":2,"longer":true}', '{"n":"ü"}'.encode()]
FAULT = b'{"error":{"type":"overloaded_error","message":"no"}}'


@dataclass
class Asked:
    endpoint: Endpoint
    module: Any
    """The SDK's, with its errors."""
    scripted: Scripted

    async def post(self, body: bytes = b"{}") -> bytes:
        """What it answers, read to its end."""
        response = await self.endpoint.post(body)
        return await read(response)


async def read(response: Incoming) -> bytes:
    try:
        return b"".join([piece async for piece in response.aiter_bytes()])
    finally:
        await response.aclose()


def endpoint_of(stack: AsyncExitStack, kind: str, url: str, client: httpx2.AsyncClient) -> Endpoint:
    sdk = SDKS[kind](api_key=KEY, base_url=f"{url}/prefix", max_retries=0, http_client=client)
    stack.push_async_callback(sdk.close)
    options: dict[str, Any] = {"headers": {}, "max_retries": 0}
    if kind == "openai":  # as the adapters give them: Anthropic's would tell a time-out in a header
        options["timeout"] = client.timeout
    return Endpoint(sdk, client, absolute(sdk.base_url, PATHS[kind]), options)


@pytest.fixture
async def asked(kind: str, scripted: Scripted) -> AsyncIterator[Asked]:
    """The first request was made."""
    scripted.answers, scripted.close_after = [answer(b"ok")], False
    async with AsyncExitStack() as stack:
        asked = Asked(endpoint_of(stack, kind, scripted.url, open_client(5.0)), MODULES[kind], scripted)
        assert await asked.post() == b"ok"
        yield asked


async def test_every_request_is_the_sdks_own_to_the_byte(kind: str, asked: Asked) -> None:
    async with AsyncExitStack() as stack:
        timeout = httpx2.Timeout(5.0, connect=http.CONNECT_S)
        usual = httpx2.AsyncClient(timeout=timeout, headers={"accept-encoding": "identity"})
        sdk_only = endpoint_of(stack, kind, asked.scripted.url, usual)
        for body in BODIES:
            await read(await sdk_only.post(body))
    asked.scripted.requests, theirs = [], asked.scripted.requests[1:]
    for body in BODIES:
        response = await asked.endpoint.post(body)
        assert isinstance(response, Answer), "not through the SDK"
        assert await read(response) == b"ok"
    assert [lines(request) for request in asked.scripted.requests] == [lines(request) for request in theirs]
    assert [request.partition(b"\r\n\r\n")[2] for request in asked.scripted.requests] == BODIES


def lines(request: bytes) -> list[bytes]:
    """Names of headers in lower case."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    return [first, *(name.lower() + b": " + value for name, value in (h.split(b": ", 1) for h in headers)), body]


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 529])
async def test_a_refusal_is_the_sdks_error_and_is_sent_once(asked: Asked, status: int) -> None:
    asked.scripted.answers = [answer(FAULT, status=f"{status} No", headers="retry-after: 7\r\n"), answer(b"again")]
    asked.scripted.requests.clear()
    with pytest.raises(asked.module.APIStatusError) as caught:
        await asked.post()
    assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (status, "7")
    assert caught.value.response.content == FAULT
    assert len(asked.scripted.requests) == 1
    assert await asked.post() == b"again"
    assert asked.scripted.connections == 1, "its connection is used again"


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_the_same_class_of_error_as_by_the_sdk_alone(asked: Asked, kind: str) -> None:
    asked.scripted.answers = [answer(FAULT, status="429 No")]
    async with AsyncExitStack() as stack:
        alone = endpoint_of(stack, kind, asked.scripted.url, httpx2.AsyncClient())
        with pytest.raises(asked.module.APIError) as theirs:
            await alone.post(b"{}")
    with pytest.raises(asked.module.APIError) as ours:
        await asked.post()
    assert type(ours.value) is type(theirs.value)
    assert (ours.value.message, ours.value.body) == (theirs.value.message, theirs.value.body)


async def test_a_connection_that_breaks_is_the_sdks_error_and_is_sent_once(asked: Asked) -> None:
    asked.scripted.answers, asked.scripted.close_after = [[b"HTTP/1.1 2"]], True
    asked.scripted.requests.clear()
    with pytest.raises(asked.module.APIConnectionError) as caught:
        await asked.post()
    assert isinstance(caught.value.__cause__, httpx2.RemoteProtocolError)
    assert len(asked.scripted.requests) == 1
    asked.scripted.answers = [answer(b"ok")]
    assert await asked.post() == b"ok"


async def test_what_became_of_one_request_is_nothing_to_the_next(asked: Asked, kind: str) -> None:
    """A turn goes on to another provider in the same task, whose first request is its SDK's own."""
    asked.scripted.answers = [answer(FAULT, status="500 No"), answer(b"ok")]
    asked.scripted.requests.clear()
    async with AsyncExitStack() as stack:
        other = endpoint_of(stack, kind, asked.scripted.url, open_client(5.0))
        with pytest.raises(asked.module.APIStatusError):
            await asked.post()
        assert await read(await other.post(b"{}")) == b"ok"


async def test_a_compressed_answer_is_read_all_the_same(asked: Asked) -> None:
    asked.scripted.answers = [answer(gzip.compress(b"small"), headers="Content-Encoding: gzip\r\n")]
    assert await asked.post() == b"small"


async def test_calls_at_the_same_time_get_their_own_outcome(asked: Asked) -> None:
    refused, fine = answer(FAULT, status="500 No"), answer(b"ok")
    asked.scripted.answers = [refused, fine, refused, fine]
    asked.scripted.requests.clear()
    found = await asyncio.gather(*(asked.post() for _ in range(4)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in found) == ["InternalServerError"] * 2 + ["bytes"] * 2


async def test_stopping_while_the_sdk_reads_a_refusal_ends_the_connection(asked: Asked, eventually: Eventually) -> None:
    asked.scripted.answers = [[b"HTTP/1.1 500 No\r\ncontent-length: 10\r\n\r\nhalf"]]
    reading = asyncio.Event()
    plain = asked.endpoint._by_sdk

    async def by_sdk(body: bytes) -> httpx2.Response:
        asyncio.get_running_loop().call_soon(reading.set)
        return await plain(body)

    asked.endpoint._by_sdk = by_sdk  # type: ignore[method-assign]
    asking = asyncio.ensure_future(asked.post())
    await reading.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    async def ended() -> bool:
        return asked.scripted.ended == 1

    assert await eventually(ended)
    asked.scripted.answers = [answer(b"ok")]
    assert await asked.post() == b"ok"
    assert asked.scripted.connections == 2


async def test_behind_a_proxy_every_request_is_the_sdks(kind: str, scripted: Scripted) -> None:
    scripted.answers = [answer(b"ok")]
    async with AsyncExitStack() as stack:
        endpoint = endpoint_of(stack, kind, scripted.url, httpx2.AsyncClient())
        for _ in range(2):
            response = await endpoint.post(b"{}")
            assert isinstance(response, httpx2.Response)
            assert await read(response) == b"ok"
