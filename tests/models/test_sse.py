"""The event decoder: any cut of the bytes gives the same events. The reader: it lets go at once."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.conftest import Scripted, events
from workers.models.sse import Decoder, Events, StreamTooLarge, said

END = st.sampled_from([b"\n", b"\r\n", b"\r"])


def decode(pieces: list[bytes]) -> list[bytes]:
    decoder = Decoder()
    return [data for piece in pieces for data in decoder.feed(piece)]


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(position % (len(stream) + 1) for position in at)})
    return [stream[start:end] for start, end in pairwise(edges)]


@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=6), end=END, at=st.lists(st.integers(0, 10_000)))
def test_any_cut_and_any_line_end_give_the_same_events(texts: list[str], end: bytes, at: list[int]) -> None:
    datas = [json.dumps(text).encode() for text in texts]
    stream = b"".join(b"event: x" + end + b"data: " + data + end + end for data in datas) + b": bye\n"
    assert decode(cut(stream, at)) == datas


@pytest.mark.parametrize(
    ("stream", "datas"),
    [
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b": comment\n\nid: 7\nretry: 5\n\n", []),
        (b"event: ping\n\n", []),
        (b"data: unfinished", []),
        (b"data: unfinished\n", []),
        (b"database: no\n\n", []),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
    ],
)
def test_only_complete_events_with_data_count(stream: bytes, datas: list[bytes]) -> None:
    assert decode([stream]) == datas


def test_event_without_end_is_refused() -> None:
    with pytest.raises(StreamTooLarge):
        decode([b"x" * 100_000] * 100)


async def test_closing_the_reader_closes_the_response_before_it_returns(scripted: Scripted) -> None:
    scripted.answers = [events("1", "2", "3")]
    async with httpx2.AsyncClient() as http:
        response = await http.send(http.build_request("POST", scripted.url, content=b"{}"), stream=True)

        async def answered() -> httpx2.Response:
            return response

        async with Events(answered(), timeout_s=60) as arriving:
            assert (await anext(arriving))[0] == b"1"
            assert not response.is_closed
        assert response.is_closed


async def stalling(*pieces: bytes) -> httpx2.Response:
    """Sends these, then nothing more."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        await asyncio.Event().wait()

    return httpx2.Response(200, content=body())


async def test_the_deadline_ends_a_wait_that_takes_too_long() -> None:
    arriving = Events(stalling(b"data: 1\n\n"), timeout_s=0.5)
    assert await anext(arriving) == [b"1"]
    with pytest.raises(TimeoutError):
        await anext(arriving)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "the task goes on as if nothing had been"


async def test_the_deadline_lets_its_consumer_alone() -> None:
    """It passes while the consumer is at work, and is noticed at the next wait."""
    arriving = Events(stalling(b"data: 1\n\n"), timeout_s=0.5)
    assert await anext(arriving) == [b"1"]
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.6, passed.set)
    await passed.wait()
    with pytest.raises(TimeoutError):
        await anext(arriving)


async def test_a_cancellation_from_outside_is_no_time_out() -> None:
    arriving = Events(stalling(), timeout_s=30)
    waiting = asyncio.ensure_future(anext(arriving))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_events_that_arrive_together_come_together() -> None:
    arriving = Events(stalling(b"data: 1\n\ndata: 2\n\nda", b"ta: 3\n\n"), timeout_s=30)
    assert [await anext(arriving), await anext(arriving)] == [[b"1", b"2"], [b"3"]]


def test_text_before_a_fault_is_told_with_it() -> None:
    def add(data: bytes) -> str:
        if data == b"bad":
            raise ValueError("bad")
        return data.decode()

    text, fault = said([b"a", b"b", b"bad", b"c"], add)
    assert (text, str(fault)) == ("ab", "bad")
    assert said([b"a", b"b"], add) == ("ab", None)
