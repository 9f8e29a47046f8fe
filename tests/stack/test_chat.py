"""The terminal client against a server that misbehaves on purpose: breaks streams, is busy, refuses, is not there."""

import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest

from ops.chat import Chat, ChatFailed, run
from ops.sse import ServerSentEvent, events
from tests.stack.dev_process import REPOSITORY, clean_environment

JOB = {"id": "j-1", "conversation_id": "c-1", "state": "queued"}
ENDED = {**JOB, "state": "succeeded", "usage": {"input_tokens": 5, "output_tokens": 2}, "cost_usd": "0.000001000"}
BUSY = {"title": "Unavailable", "detail": "the queue is full"}


class Say(Protocol):
    """Run a piped chat with these lines; returns its exit code."""

    def __call__(self, text: str, url: str | None = None) -> int: ...


class Peer(ThreadingHTTPServer):
    """Answers each request with the next of its `answers` and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answering(BaseHTTPRequestHandler):
    server: Peer

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.server.answers.pop(0)(self)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names http.server looks for

    def log_message(self, *_arguments: object) -> None:
        """Requests are remembered, not printed."""


def answer(status: int, body: Any, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def write(request: BaseHTTPRequestHandler) -> None:
        raw = json.dumps(body).encode()
        request.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(raw)

    return write


def stream(*shown: tuple[int, str, Any], cut: bool = False) -> Callable[[BaseHTTPRequestHandler], None]:
    """A stream of events; `cut`: the connection ends in the middle of the next one."""

    def write(request: BaseHTTPRequestHandler) -> None:
        text = "".join(f"id: {seq}\nevent: {kind}\ndata: {json.dumps(data)}\n\n" for seq, kind, data in shown)
        raw = (": hello\n\n" + text + ("id: 99\nevent: message.delta\nda" if cut else "")).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(raw) + (100 if cut else 0)))
        request.end_headers()
        request.wfile.write(raw)
        request.close_connection = True

    return write


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def say(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Say:
    def talk(text: str, url: str | None = None) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        monkeypatch.setattr("ops.chat.PAUSE_S", 0.0)
        return run(Chat(agent="support", url=url or peer.url, key="k", user="ada"))

    return talk


def test_a_broken_stream_goes_on_after_the_last_event_it_showed(
    peer: Peer, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    first = stream((1, "job.started", {"attempt": 1}), (2, "message.delta", {"delta": "Hel"}), cut=True)
    rest = stream((3, "message.delta", {"delta": "lo"}), (4, "job.succeeded", ENDED))
    peer.answers = [answer(202, JOB), first, answer(503, BUSY), rest]
    assert say("Hi\n") == 0
    assert capsys.readouterr().out == "Hello\n"
    assert [headers.get("Last-Event-ID") for _, _, headers, _ in peer.asked[1:]] == [None, "2", "2"]


def test_a_message_sent_again_while_the_server_is_busy_is_one_message(peer: Peer, say: Say) -> None:
    peer.answers = [answer(503, BUSY, Retry_After="0"), answer(202, JOB), stream((1, "job.succeeded", ENDED))]
    assert say("Hi\n") == 0
    first, second = (headers["Idempotency-Key"] for method, _, headers, _ in peer.asked if method == "POST")
    assert first == second


def test_the_second_message_continues_the_conversation(peer: Peer, say: Say) -> None:
    peer.answers = [answer(202, JOB), stream((1, "job.succeeded", ENDED))] * 2
    assert say("One\nTwo\n") == 0
    bodies = [body for method, _, _, body in peer.asked if method == "POST"]
    assert bodies == [
        {"message": "One", "user_id": "ada"},
        {"message": "Two", "user_id": "ada", "conversation_id": "c-1"},
    ]


def test_a_reply_that_starts_over_says_so(peer: Peer, say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [
        (1, "message.delta", {"delta": "Wro"}),
        (2, "attempt.reset", {"attempt": 2}),
        (3, "message.delta", {"delta": "Right"}),
        (4, "job.succeeded", ENDED),
    ]
    peer.answers = [answer(202, JOB), stream(*shown)]
    assert say("Hi\n") == 0
    printed = capsys.readouterr()
    assert printed.out == "Wro\nRight\n"
    assert printed.err == "… once more\n5 tokens in, 2 out, $0.000001000\n"


def test_a_dead_job_is_said_and_is_the_exit_code(peer: Peer, say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    dead = {**JOB, "state": "dead", "error": {"message": "the model was not available"}}
    peer.answers = [answer(202, JOB), stream((1, "job.dead", dead))]
    assert say("Hi\n") == 1
    assert capsys.readouterr().err == "dead: the model was not available\n"


def test_a_faulty_message_is_explained_and_the_chat_goes_on(
    peer: Peer, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = {"title": "Invalid", "errors": [{"field": "message", "message": "is too long"}]}
    peer.answers = [answer(422, problem), answer(202, JOB), stream((1, "job.succeeded", ENDED))]
    assert say("long\nshort\n") == 0
    assert "message: is too long" in capsys.readouterr().err


def test_a_wrong_key_ends_the_chat_with_the_reason(peer: Peer, say: Say) -> None:
    peer.answers = [answer(401, {"title": "Unauthorized", "detail": "this API key is not known"})]
    with pytest.raises(ChatFailed, match=r"^this API key is not known$"):
        say("One\nTwo\n")
    assert len(peer.asked) == 1


def test_no_server_at_all_is_one_line(say: Say) -> None:
    with pytest.raises(ChatFailed, match=r"^nothing answers at http://127.0.0.1:1: is `switchboard dev` running\?$"):
        say("Hi\n", "http://127.0.0.1:1")


def test_ctrl_c_cancels_the_job_and_shows_how_it_ended(peer: Peer, tmp_path: Path) -> None:
    streaming, over = threading.Event(), threading.Event()

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b'id: 1\nevent: message.delta\ndata: {"delta": "I was going to"}\n\n')
        request.wfile.flush()
        streaming.set()
        over.wait(30)

    cancelled = {**JOB, "state": "cancelled"}
    peer.answers = [answer(202, JOB), endless, answer(202, cancelled), stream((2, "job.cancelled", cancelled))]
    with subprocess.Popen(
        [sys.executable, "-m", "ops", "chat", "--url", peer.url],
        cwd=REPOSITORY,
        env=clean_environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as chat:
        assert chat.stdin
        assert chat.stdout
        chat.stdin.write(b"Hi\n")
        chat.stdin.close()
        assert streaming.wait(30)
        shown = chat.stdout.read(14)  # the client has the event, not only the wire
        chat.send_signal(signal.SIGINT)
        assert chat.wait(30) == 1
        over.set()
        assert chat.stderr
        assert (shown + chat.stdout.read(), chat.stderr.read()) == (b"I was going to\n", b"cancelled: no reply\n")
    assert [(method, path) for method, path, _, _ in peer.asked[2:]] == [
        ("DELETE", "/v1/jobs/j-1"),
        ("GET", "/v1/jobs/j-1/events"),
    ]


def test_events_are_read_as_the_standard_says() -> None:
    lines = ["\ufeff: comment", "id: 7", "event: a", "data: one", "data:two", "", "data: three", "", "data: cut"]
    assert list(events(lines)) == [ServerSentEvent("7", "a", "one\ntwo"), ServerSentEvent("7", "message", "three")]
