"""Answers that leave in one piece: the same bytes, in order, on connections that go on or end as they should."""

import asyncio
import re

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ingress import answering
from tests.ingress.harness import Served
from tests.ingress.listening import request

CHANGING = re.compile(
    rb"(?<=date: )[^\r]+|(?<=x-request-id: )[^\r]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    rb"|(?<=token=a\.)[\w-]+|\d{4}-\d\d-\d\dT[\d:.]+Z|(?<=\"position\":)\d+"
)


async def answers(server: Served, *requests: bytes) -> list[bytes]:
    """All of them written at once; what comes back until as many answers are there, or the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(b"".join(requests))
    found = []
    for _ in requests:
        if not (head := await _head(reader)):
            break
        length = re.search(rb"content-length: (\d+)", head)
        assert length
        found.append(head + await reader.readexactly(int(length[1])))
    writer.close()
    return found


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Empty when the server has closed instead."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What uvicorn was given in messages, as any answer is."""
    seen: list[str] = []
    usual = RequestResponseCycle.send

    async def send(cycle: RequestResponseCycle, message: object) -> None:
        seen.append(message["type"])  # type: ignore[index]
        await usual(cycle, message)  # type: ignore[arg-type]

    monkeypatch.setattr(RequestResponseCycle, "send", send)
    return seen


async def test_an_answer_in_one_piece_has_the_bytes_it_has_in_two(
    server: Served, sends: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request("x-request-id: r-1", body='{"message": "a", "user_id": "b"}')
    (whole,) = await answers(server, asked)
    assert sends == []
    monkeypatch.setattr(answering, "_simple", lambda cycle: False)
    (usual,) = await answers(server, asked)
    assert sends == ["http.response.start", "http.response.body"]
    assert whole.startswith(b"HTTP/1.1 202 Accepted\r\ndate: ")
    assert b"x-request-id: r-1\r\n" in whole
    assert b"ratelimit-policy: " in whole
    remaining = re.compile(rb"(?<=;r=)\d+|(?<=remaining: )\d+")  # one message less
    assert remaining.sub(b"", CHANGING.sub(b"", whole)) == remaining.sub(b"", CHANGING.sub(b"", usual))


async def test_requests_sent_at_once_are_answered_in_their_order(server: Served, sends: list[str]) -> None:
    found = await answers(server, *(request(f"x-request-id: r-{n}") for n in range(5)))
    assert [re.findall(rb"x-request-id: (\S+)", each) for each in found] == [[b"r-%d" % n] for n in range(5)]
    assert sends == []


async def test_a_refusal_between_them_leaves_the_connection_in_order(server: Served) -> None:
    found = await answers(server, request(), request(body="{}"), request())
    assert [int(each[9:12]) for each in found] == [202, 422, 202]


@pytest.mark.parametrize(
    "last", [request("connection: close"), request(version="1.0")], ids=["connection: close", "HTTP/1.0"]
)
async def test_a_connection_that_is_to_end_ends_with_its_answer(server: Served, last: bytes) -> None:
    found = await answers(server, request(), last, request())
    assert [int(each[9:12]) for each in found] == [202, 202]
    assert b"connection: close\r\n" in found[1]


async def test_a_caller_who_waits_to_be_told_to_go_on_is_told(server: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    head, _, body = request("expect: 100-continue").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202 ")
    writer.close()
