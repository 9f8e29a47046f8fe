"""Logs have one form, and errors reach Sentry without anybody's words."""

import gzip
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

PROGRAM = """
import logging, sys
import sentry_sdk, structlog
from shared import telemetry
from shared.config import Settings

telemetry.configure(Settings.read({"sentry_dsn": sys.argv[1], "environment": "development"}))

def answer(message):
    raise ValueError("it broke")

try:
    answer("my password is hunter2")
except ValueError as error:
    structlog.get_logger("turn").error("turn.broke", job_id="j-1", exc_info=error)
sentry_sdk.flush(5)
"""


@contextmanager
def sentry() -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes envelopes: its DSN and what it was sent."""
    envelopes: list[bytes] = []

    class Envelopes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            envelopes.append(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: object) -> None:
            logging.getLogger("test").debug("%s", args)

    server = HTTPServer(("127.0.0.1", 0), Envelopes)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://key@127.0.0.1:{server.server_port}/1", envelopes
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_error_reaches_sentry_without_the_words_of_a_user() -> None:
    with sentry() as (dsn, envelopes):
        root = Path(__file__).parents[1]
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, dsn], cwd=root, capture_output=True, check=True, timeout=60
        )
    sent = b"\n".join(envelopes)
    assert b"ValueError" in sent
    assert b"hunter2" not in sent
    line = json.loads(ran.stdout.splitlines()[-1])
    assert (line["event"], line["job_id"], line["level"]) == ("turn.broke", "j-1", "error")
    assert b"hunter2" not in ran.stdout
