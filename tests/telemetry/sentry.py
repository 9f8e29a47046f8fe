"""A stand-in for Sentry: takes envelopes over HTTP, as the SDK sends them, and shows what is in them."""

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Sentry:
    dsn: str
    envelopes: list[bytes] = field(default_factory=list)

    @property
    def sent(self) -> bytes:
        return b"\n".join(self.envelopes)

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Payloads of a type: `event` or `transaction`."""
        return [payload for envelope in self.envelopes for name, payload in _items(envelope) if name == kind]


def _items(envelope: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """An envelope is a header, then header and payload of each item, each on its line."""
    lines = envelope.split(b"\n")[1:]
    for header, payload in zip(lines[::2], lines[1::2], strict=False):
        if header:
            yield json.loads(header)["type"], json.loads(payload)


@contextmanager
def sentry() -> Iterator[Sentry]:
    class Envelopes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.envelopes.append(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: object) -> None:
            logging.getLogger("test").debug("%s", args)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Envelopes)
    taken = Sentry(f"http://key@127.0.0.1:{server.server_port}/1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
