"""A model server of fixed bytes: `python -m benchmarks.product.model PORT DELAY_MS`.

Every request gets the same answer after the same delay, streamed when it asks for a stream. What it costs is a few
microseconds, so that the SDK and the product are what is measured.
"""

import asyncio
import sys
from typing import Any, cast

import msgspec
import uvloop

from benchmarks.product.http import END, LENGTH

REPLY = "You can return it within thirty days."
USAGE = {"prompt_tokens": 300, "completion_tokens": 8, "total_tokens": 308}
MODEL = "gpt-5.4-mini"


def _answer(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nx-request-id: req_bench\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _chunk(**fields: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return b"data: " + msgspec.json.encode({**head, **fields}) + b"\n\n"


def _choice(delta: dict[str, str], finish: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "finish_reason": finish}]


STREAMED = _answer(
    "text/event-stream",
    b"".join(_chunk(choices=_choice({"content": word + " "})) for word in REPLY.split())
    + _chunk(choices=_choice({}, "stop"))
    + _chunk(choices=[], usage=USAGE)
    + b"data: [DONE]\n\n",
)
WHOLE = _answer(
    "application/json",
    msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop"},
            ],
            "usage": USAGE,
        }
    ),
)


class Model(asyncio.Protocol):
    delay_s = 0.05

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(END)
        if head < 0:
            return
        headers = self._got[:head].lower() + b"\r"
        start = headers.index(LENGTH) + len(LENGTH)
        if len(self._got) >= head + len(END) + int(headers[start : headers.index(b"\r", start)]):
            streamed = b'"stream":true' in self._got
            self._got = b""
            asyncio.get_running_loop().call_later(self.delay_s, self._reply, STREAMED if streamed else WHOLE)

    def _reply(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", port, backlog=4_096)
    await server.serve_forever()


if __name__ == "__main__":
    Model.delay_s = float(sys.argv[2]) / 1000
    uvloop.run(serve(int(sys.argv[1])))
