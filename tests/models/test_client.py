"""What our client sends is, to the byte, what the SDKs would have sent through httpx2's own."""

from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from workers.models import http
from workers.models.http import DirectClient, absolute, open_client
from workers.models.transport import ModelTransport

BASE_URL = "http://models.example:8080/prefix/v1"
TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
OPTIONS: dict[str, Any] = {
    "openai": {"headers": {}, "max_retries": 0, "timeout": TIMEOUT},
    "anthropic": {"headers": {}, "max_retries": 0},  # a time-out would be told in a header
}
"""As the adapters give them."""


class Recorder(httpx2.AsyncBaseTransport):
    """Keeps what arrives, answers with nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        body = await request.aread()
        self.seen.append((request.method, str(request.url), headers, body, request.extensions["timeout"]))
        return httpx2.Response(200, stream=httpx2.ByteStream(b"{}"))


def plain(recorder: Recorder) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(mounts={"all://": recorder}, timeout=TIMEOUT, headers={"accept-encoding": "identity"})


def direct(recorder: Recorder) -> httpx2.AsyncClient:
    return DirectClient(recorder, timeout=TIMEOUT, headers={"accept-encoding": "identity"})


def sdk(provider: str, client: httpx2.AsyncClient) -> tuple[Any, str]:
    kind: Any = openai.AsyncOpenAI if provider == "openai" else anthropic.AsyncAnthropic
    path = "/chat/completions" if provider == "openai" else "/v1/messages"
    return kind(api_key="sk-secret", base_url=BASE_URL, max_retries=0, http_client=client), path


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_requests_are_those_of_the_sdk(provider: str) -> None:
    bodies = [b'{"n":1}', b'{"n":2,"longer":true}', '{"n":"ü"}'.encode()]
    usual, ours = Recorder(), Recorder()
    client, path = sdk(provider, plain(usual))
    for body in bodies:
        await client.post(path, content=body, cast_to=httpx2.Response, stream=True)
    client, path = sdk(provider, direct(ours))
    url = absolute(client.base_url, path.removeprefix("/"))
    for body in bodies:
        await client.post(url, content=body, cast_to=httpx2.Response, stream=True, options=OPTIONS[provider])
    assert ours.seen == usual.seen
    assert [body for *_, body, _ in ours.seen] == bodies


async def test_other_time_outs_are_other_requests() -> None:
    recorder = Recorder()
    client, path = sdk("openai", direct(recorder))
    for seconds in (1.0, 2.0):
        options = {**OPTIONS["openai"], "timeout": httpx2.Timeout(30.0, connect=seconds)}
        await client.post(path, content=b"{}", cast_to=httpx2.Response, stream=True, options=options)
    assert [timeout["connect"] for *_, timeout in recorder.seen] == [1.0, 2.0]


Send = Callable[[httpx2.AsyncClient], Awaitable[httpx2.Response]]


@pytest.mark.parametrize(
    "send",
    [
        lambda client: client.get("http://models.example/v1/models", params={"limit": 1}),
        lambda client: client.post("http://models.example/v1/files", files={"file": b"content"}),
        lambda client: client.post("http://models.example/v1/embeddings", json={"input": "x"}),
    ],
    ids=["query", "files", "json"],
)
async def test_whatever_is_unusual_is_built_by_httpx2(send: Send) -> None:
    usual, ours = Recorder(), Recorder()
    await send(plain(usual))
    response = await send(direct(ours))
    assert response.json() == {}, "read whole, as nobody asked for a stream"
    without_boundary = [tuple(part for part in seen if not isinstance(part, list | bytes)) for seen in ours.seen]
    assert without_boundary == [
        tuple(part for part in seen if not isinstance(part, list | bytes)) for seen in usual.seen
    ]


async def test_a_closed_client_sends_nothing() -> None:
    recorder = Recorder()
    client = direct(recorder)
    await client.aclose()
    with pytest.raises(RuntimeError):
        await client.get("http://models.example/")
    assert recorder.seen == []


async def test_a_proxy_of_the_environment_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert isinstance(open_client(1.0), DirectClient)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    client = open_client(1.0)
    assert not isinstance(client, DirectClient)
    assert not isinstance(client._transport_for_url(httpx2.URL("https://api.openai.com/")), ModelTransport)
    assert isinstance(client._transport_for_url(httpx2.URL("http://models.example/")), ModelTransport)


def test_forms_are_kept_for_few_kinds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MOST_KINDS", 2)
    client: Any = direct(Recorder())
    for n in range(4):
        request = client.build_request("POST", f"http://m/{n}", content=b"abc", headers=[("a", "b")], timeout=TIMEOUT)
        assert (str(request.url), request.headers["content-length"]) == (f"http://m/{n}", "3")
    assert len(client._forms) == 2
