"""The HTTP transport by itself: framing, reuse, limits and what it refuses, against real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Eventually
from tests.models.conftest import Scripted, answer
from workers.models.transport import ModelTransport

TLS = Path(__file__).with_name("tls")


async def post(client: httpx2.AsyncClient, url: str, content: bytes = b"{}") -> httpx2.Response:
    return await client.post(url, content=content)


def client(transport: ModelTransport | None = None, timeout_s: float = 60.0) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=transport or ModelTransport(), timeout=timeout_s)


@pytest.mark.parametrize(
    ("writes", "body"),
    [
        (answer(b"hello"), b"hello"),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"], b"hello"),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"], b"hello"),
        ([b"HTTP/1.1 200 OK\r\n\r\nhello"], b"hello"),  # the end of the connection is the end of the body
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", *answer(b"hello")], b"hello"),
        ([b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + answer(b"hello")[0]], b"hello"),
        ([bytes([byte]) for byte in answer(b"hello")[0]], b"hello"),
    ],
)
async def test_every_framing_of_a_body_is_read(scripted: Scripted, writes: list[bytes], body: bytes) -> None:
    scripted.answers = [writes]
    async with client() as http:
        response = await post(http, scripted.url)
    assert response.content == body
    assert "link" not in response.headers


@pytest.mark.parametrize(
    "writes",
    [
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-le"],
        [],
        [b"220 mail.example ESMTP\r\n"],
    ],
)
async def test_body_that_is_cut_is_an_error_and_never_an_answer(scripted: Scripted, writes: list[bytes]) -> None:
    scripted.answers = [writes]
    async with client() as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await post(http, scripted.url)


async def test_connection_is_used_again_only_after_a_whole_response(scripted: Scripted) -> None:
    scripted.close_after = False
    unfinished = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"]
    scripted.answers = [answer(b"hello"), answer(b"hello"), unfinished, answer(b"hello")]
    async with client() as http:
        await post(http, scripted.url)
        await post(http, scripted.url)
        assert scripted.connections == 1
        async with http.stream("POST", scripted.url, content=b"{}"):
            pass  # closed before its end
        await post(http, scripted.url)
        assert scripted.connections == 2


async def test_connection_the_server_wants_closed_is_not_used_again(scripted: Scripted) -> None:
    scripted.close_after = False
    scripted.answers = [answer(b"hello", headers="connection: close\r\n")]
    async with client() as http:
        await post(http, scripted.url)
        await post(http, scripted.url)
    assert scripted.connections == 2


async def test_connection_closed_while_idle_is_replaced(scripted: Scripted, eventually: Eventually) -> None:
    scripted.answers = [answer(b"hello")]
    transport = ModelTransport()
    async with client(transport) as http:
        for _ in range(3):
            assert (await post(http, scripted.url)).content == b"hello"
            await eventually(lambda: transport.idle_connections == 0)
    assert scripted.connections == 3


async def test_idle_connection_grows_too_old(scripted: Scripted) -> None:
    scripted.close_after = False
    scripted.answers = [answer(b"hello")]
    async with client(ModelTransport(keepalive_s=0.0)) as http:
        await post(http, scripted.url)
        await post(http, scripted.url)
    assert scripted.connections == 2


async def test_second_response_to_one_request_poisons_the_connection(scripted: Scripted) -> None:
    scripted.close_after = False
    scripted.answers = [[answer(b"mine")[0] + answer(b"smuggled")[0]], answer(b"next")]
    async with client() as http:
        assert (await post(http, scripted.url)).content == b"mine"
        assert (await post(http, scripted.url)).content == b"next"
    assert scripted.connections == 2


async def test_large_bodies_pass_in_both_directions(scripted: Scripted) -> None:
    body = b"x" * 3_000_000
    scripted.answers = [answer(body)]
    async with client() as http:
        assert (await post(http, scripted.url, content=body)).content == body
    assert scripted.requests[0].endswith(body)


async def test_line_break_in_a_header_is_refused(scripted: Scripted) -> None:
    scripted.answers = [answer(b"hello")]
    async with client() as http:
        with pytest.raises(httpx2.LocalProtocolError):
            await http.post(scripted.url, headers={"x-key": "a\r\nx-other: b"}, content=b"{}")
    assert scripted.requests == []


async def test_silence_ends_after_the_read_timeout(scripted: Scripted) -> None:
    scripted.close_after = False
    scripted.answers = [[b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"]]
    async with client(timeout_s=1.0) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await post(http, scripted.url)


async def test_refused_connection_is_a_connect_error(unused_tcp_port: int) -> None:
    async with client() as http:
        with pytest.raises(httpx2.ConnectError):
            await post(http, f"http://127.0.0.1:{unused_tcp_port}")


async def test_plain_server_behind_https_is_a_connect_error() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server, client() as http:
        with pytest.raises(httpx2.ConnectError):
            await post(http, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.fixture
async def tls_server(scripted: Scripted) -> AsyncIterator[str]:
    """`scripted` behind TLS, with a certificate that only these tests trust (`tls/`, valid for 100 years)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()  # not wait_closed(): from 3.12 on it waits for connections that a client keeps alive


async def test_tls_is_spoken_with_a_server_that_is_trusted(
    scripted: Scripted, tls_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))
    scripted.answers = [answer(b"hello")]
    scripted.close_after = False
    async with client() as http:
        assert (await post(http, tls_server)).content == b"hello"
        assert (await post(http, tls_server)).content == b"hello"
    assert scripted.connections == 1


async def test_server_that_is_not_trusted_gets_no_request(scripted: Scripted, tls_server: str) -> None:
    async with client() as http:
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await post(http, tls_server)
    assert scripted.requests == []


async def test_server_of_another_name_gets_no_request(
    scripted: Scripted, tls_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))
    async with client() as http:
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await post(http, tls_server.replace("127.0.0.1", "localhost"))
    assert scripted.requests == []
