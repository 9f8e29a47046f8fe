"""Both adapters, closed afterwards, and loopback servers that answer with exactly the bytes a test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from agents.api import ChatModel, Completion, Message, Prompt
from ops.stack.standin import Standin
from workers.models.anthropic import AnthropicModel
from workers.models.openai import OpenAIModel

KEY = "sk-secret-key-of-the-tests"
NAMES = {"openai": "gpt-5.4-mini", "anthropic": "claude-haiku-4-5"}
PROMPT = Prompt(
    "You are brief.",
    (Message("user", "My name is Ada."), Message("assistant", "Hello Ada."), Message("user", "What is my name?")),
    max_tokens=200,
)


@dataclass(frozen=True)
class Provider:
    """One adapter against a server, and the model name to ask it for."""

    adapter: OpenAIModel | AnthropicModel
    name: str

    async def ask(self, prompt: Prompt = PROMPT, *, timeout_s: float = 60.0, user: str | None = None) -> Completion:
        """The completion, after checking that the pieces make its text."""
        *pieces, completion = await collect(self.adapter, self.name, prompt, timeout_s=timeout_s, user=user)
        assert isinstance(completion, Completion)
        assert all(isinstance(piece, str) and piece for piece in pieces)
        if completion.finish != "refusal":
            assert "".join(map(str, pieces)) == completion.text
        return completion


async def collect(
    model: ChatModel, name: str, prompt: Prompt = PROMPT, *, timeout_s: float = 60.0, user: str | None = None
) -> list[str | Completion]:
    async with aclosing(model.stream(prompt, model=name, timeout_s=timeout_s, user=user)) as pieces:
        return [piece async for piece in pieces]


MakeProvider = Callable[..., Provider]


@pytest.fixture
async def make_provider() -> AsyncIterator[MakeProvider]:
    """`make_provider("openai", url, idle_timeout_s=…)`; `url` without `/v1`."""
    async with AsyncExitStack() as stack:

        def make(kind: str, url: str, idle_timeout_s: float = 60.0) -> Provider:
            adapter: OpenAIModel | AnthropicModel
            if kind == "openai":
                adapter = OpenAIModel(api_key=KEY, base_url=f"{url}/v1", idle_timeout_s=idle_timeout_s)
            else:
                adapter = AnthropicModel(api_key=KEY, base_url=url, idle_timeout_s=idle_timeout_s)
            stack.push_async_callback(adapter.aclose)
            return Provider(adapter, NAMES[kind])

        yield make


@pytest.fixture(params=["openai", "anthropic"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(kind: str, standin: Standin, make_provider: MakeProvider) -> Provider:
    """Each adapter against the stand-in model server."""
    return make_provider(kind, standin.url)


@pytest.fixture
async def behave(standin: Standin) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """`await behave(faults=["hang"])` sets the stand-in's behaviour."""
    async with httpx.AsyncClient(base_url=standin.url) as client:

        async def post(**rule: object) -> None:
            (await client.post("/_behaviour", json=rule)).raise_for_status()

        yield post


@pytest.fixture
async def served(standin: Standin) -> AsyncIterator[Callable[[], Awaitable[dict[str, object]]]]:
    """`(await served())["requests"]`: the stand-in's own books."""
    async with httpx.AsyncClient(base_url=standin.url) as client:

        async def get() -> dict[str, object]:
            books: dict[str, object] = (await client.get("/_served")).json()
            return books

        yield get


@dataclass
class Scripted:
    """A server that answers its n-th request with the n-th list of writes, the last one again and again."""

    url: str = ""
    answers: list[list[bytes]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    ended: int = 0
    """Of these connections."""
    close_after: bool = True
    """Whether the connection is closed after an answer."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while request := await read_request(reader):
                self.requests.append(request)
                for piece in self.answers[min(len(self.requests), len(self.answers)) - 1]:
                    writer.write(piece)
                    await writer.drain()
                if self.close_after:
                    break
        except ConnectionError:
            pass  # the client went away, as some tests want it to
        finally:
            self.ended += 1
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Head and body; empty at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(int(length.split(b":")[1]))


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    script = Scripted()
    async with scripted_server(script):
        yield script


@asynccontextmanager
async def scripted_server(script: Scripted) -> AsyncIterator[None]:
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield
    finally:
        server.close()  # not wait_closed(): from 3.12 on it waits for connections that a client keeps alive


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> list[bytes]:
    """One whole response with a length."""
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nx-request-id: req_1\r\n{headers}\r\n"
    return [head.encode() + body]


def events(*datas: str) -> list[bytes]:
    """One whole event stream."""
    return answer(b"".join(b"data: %s\n\n" % data.encode() for data in datas))
