"""`switchboard chat`: talk to an agent from a terminal or through a pipe, reading the reply as it is written.

A plain client of the public HTTP interface, knowing nothing of the inside. Replies go to stdout, everything else to
stderr. Ctrl-C cancels the running job, Ctrl-D leaves. A stream that breaks is taken up again after its last event.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console

from ops.sse import ServerSentEvent, events
from shared.errors import SwitchboardError
from shared.ids import uuid7
from shared.jobs import JobState

TRIES = 8
PAUSE_S = 0.5
IDLE_TIMEOUT_S = 45.0
"""Three keep-alives of the server without a byte: the connection is dead."""

FINAL = {f"job.{state}" for state in JobState if state.ended}
NO_ENTRY = {401, 403, 404}
"""Statuses that every further message would get too: wrong key, or no such agent."""


class ChatFailed(SwitchboardError):
    """The server is not there or does not let us in: one line, and the chat is over."""


class _Refused(Exception):
    """This one message was not taken; the next may be."""


@dataclass
class Chat:
    """One conversation; its id comes with the first answer when none was given."""

    agent: str
    url: str
    key: str
    user: str | None = None
    conversation: str | None = None


def run(chat: Chat) -> int:
    """Talk until the input ends; the exit code is 1 when the last message got no reply."""
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    succeeded = True
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever started us ignores it
    headers = {"Authorization": f"Bearer {chat.key}"}
    with httpx.Client(base_url=chat.url, headers=headers, timeout=httpx.Timeout(10, read=IDLE_TIMEOUT_S)) as client:
        for message in _messages(notes, chat):
            succeeded = _take_turn(chat, client, notes, message)
    return 0 if succeeded else 1


def _messages(notes: Console, chat: Chat) -> Iterator[str]:
    """The lines of the input that say something, until Ctrl-D (or Ctrl-C at the prompt)."""
    interactive = sys.stdin.isatty()
    if interactive:
        notes.print(f"{chat.agent} at {chat.url}. Ctrl-C cancels a reply, Ctrl-D leaves.", style="dim")
    while True:
        try:
            line = input("> ") if interactive else input()
        except (EOFError, KeyboardInterrupt):
            return
        if line.strip():
            yield line.strip()


def _take_turn(chat: Chat, client: httpx.Client, notes: Console, message: str) -> bool:
    """Send one message and show its reply; whether there was one."""
    try:
        job = _send(chat, client, message)
    except _Refused as refusal:
        notes.print(str(refusal), style="red", markup=False)
        return False
    chat.conversation = job["conversation_id"]
    ended = _follow_to_end(client, job["id"], notes)
    _show_end(ended, notes)
    return bool(ended["state"] == JobState.SUCCEEDED)


def _send(chat: Chat, client: httpx.Client, message: str) -> dict[str, Any]:
    """POST the message, again and again while the server is busy or the line breaks: one key makes it one job."""
    body = {"message": message, "user_id": chat.user, "conversation_id": chat.conversation}
    body = {name: value for name, value in body.items() if value is not None}
    headers = {"Idempotency-Key": uuid7()}
    answer = _persist(lambda: client.post(f"/v1/agents/{chat.agent}/messages", json=body, headers=headers), chat.url)
    if answer.status_code in NO_ENTRY:
        raise ChatFailed(_problem(answer))
    if not answer.is_success:
        raise _Refused(_problem(answer))
    job: dict[str, Any] = answer.json()
    return job


def _persist(request: Callable[[], httpx.Response], url: str) -> httpx.Response:
    """Repeat on 503 (after its Retry-After) and on a broken connection; a server that is not there fails at once."""
    for tries_left in reversed(range(TRIES)):
        pause_s = PAUSE_S
        try:
            answer = request()
            if answer.status_code != 503 or not tries_left:
                return answer
            pause_s = float(answer.headers.get("Retry-After", PAUSE_S))
        except httpx.ConnectError:
            raise ChatFailed(f"nothing answers at {url}: is `switchboard dev` running?") from None
        except httpx.TransportError as error:
            if not tries_left:
                raise ChatFailed(f"{url} does not answer: {error}") from None
        time.sleep(pause_s)
    raise AssertionError("unreachable: the last try returns or raises")


def _follow_to_end(client: httpx.Client, job_id: str, notes: Console) -> dict[str, Any]:
    """The first Ctrl-C cancels the job and goes on following it to its end; the second one leaves."""
    stream = _Stream(client, job_id, notes)
    try:
        return stream.follow()
    except KeyboardInterrupt:
        client.delete(f"/v1/jobs/{job_id}")
        return stream.follow()


class _Stream:
    """The events of one job, shown once each however often the connection breaks."""

    def __init__(self, client: httpx.Client, job_id: str, notes: Console) -> None:
        self._client, self._notes = client, notes
        self._path = f"/v1/jobs/{job_id}/events"
        self._last_id = ""
        self._mid_line = False

    def follow(self) -> dict[str, Any]:
        """Show events until the terminal one; returns the job resource it carries."""
        tries_left = TRIES
        while tries_left:
            before = self._last_id
            try:
                for event in self._events():
                    self._last_id = event.id or self._last_id
                    data = json.loads(event.data)
                    if event.type in FINAL:
                        self._end_line()
                        return dict(data)
                    self._show(event.type, data)
            except httpx.TransportError:
                pass  # taken up again below
            tries_left = TRIES if self._last_id != before else tries_left - 1
            time.sleep(PAUSE_S)
        raise ChatFailed("the stream of the reply broke and does not come back")

    def _events(self) -> Iterator[ServerSentEvent]:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        with self._client.stream("GET", self._path, headers=headers) as answer:
            if answer.status_code in NO_ENTRY:
                answer.read()
                raise ChatFailed(_problem(answer))
            if answer.is_success:
                yield from events(answer.iter_lines())

    def _show(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "message.delta":
            self._mid_line = True  # first: Ctrl-C may strike between any two steps
            sys.stdout.write(data["delta"])
            sys.stdout.flush()
        elif kind in {"attempt.reset", "job.retrying"}:
            self._end_line()
            self._notes.print("… once more" if kind == "attempt.reset" else "… that failed, trying again", style="dim")

    def _end_line(self) -> None:
        if self._mid_line:
            print(flush=True)
        self._mid_line = False


def _show_end(job: dict[str, Any], notes: Console) -> None:
    """What the reply took, or why there is none."""
    if job["state"] != JobState.SUCCEEDED:
        error = job.get("error") or {}
        notes.print(f"{job['state']}: {error.get('message', 'no reply')}", style="red", markup=False)
    if usage := job.get("usage"):
        note = f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out"
        notes.print(note + (f", ${job['cost_usd']}" if job.get("cost_usd") else ""), style="dim", markup=False)


def _problem(answer: httpx.Response) -> str:
    """One line from an `application/problem+json`, or from whatever else stands there."""
    try:
        problem = answer.json()
        faults = "; ".join(f"{fault.get('field', '')}: {fault['message']}" for fault in problem.get("errors", []))
        return str(faults or problem.get("detail") or problem["title"])
    except (ValueError, KeyError, AttributeError):
        return f"{answer.status_code} {answer.reason_phrase} from {answer.url}"
