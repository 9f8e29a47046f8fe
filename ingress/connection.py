"""A connection to a caller: uvicorn's own, with a short way for plain messages that needs no task.

`switchboard ingress` serves with it. All of HTTP stays uvicorn's, which makes a request's cycle; only the start of the
application waits until the bytes at hand are read. A message that came whole is then offered to `ingress.plain`;
whatever that does not take, and all that is not simply accepted, goes to the application as ever.

One timer stands for all the pauses of a connection, where uvicorn sets and cancels one for each answer.
"""

import asyncio
from typing import Any, cast

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ingress.admission import Begun
from ingress.answering import Answering
from ingress.plain import PlainMessages

log = structlog.get_logger(__name__)

STATE = "plain_messages"
"""Name of the `PlainMessages` in the state of the lifespan; without it every request is the application's."""


class Connection(HttpToolsProtocol):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._plain: PlainMessages | None = self.app_state.get(STATE)
        self._reading = False
        self._held: RequestResponseCycle | None = None
        self._idle_since_s: float | None = None
        """Time of the loop; None: a request is on its way in or being answered."""
        self._closing: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self._reading = self._plain is not None
        super().data_received(data)
        self._reading = False
        held, self._held = self._held, None
        if held is not None and (held.more_body or held.disconnected or not self._begun(held)):
            self._start(held, self.app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # A second one of the same bytes waits for the first (uvicorn's pipeline): at most one is held.
        if self._reading and app is self.app and not cycle.waiting_for_100_continue:
            self._held = cycle
        else:
            super()._start_asgi_task(cycle, app)

    def _start(self, cycle: RequestResponseCycle, app: Any) -> None:
        """The way of uvicorn. (Any: its own types and Starlette's of the same things are not the same.)"""
        super()._start_asgi_task(cycle, app)

    # --- keep-alive -------------------------------------------------------------------------------------------------

    def _unset_keepalive_if_required(self) -> None:
        # Called by uvicorn when bytes come, and when an answer is complete.
        self._idle_since_s = None

    def on_response_complete(self) -> None:
        # In full, because uvicorn's own sets its timer here.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since_s = self.loop.time()
        if self._closing is None:
            self._closing = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._closing = None
        if self._idle_since_s is None:  # the next answer sets it again
            return
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._closing = self.loop.call_later(left_s, self._close_if_idle)
        else:
            self.timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        super().connection_lost(exc)

    # --- plain messages ---------------------------------------------------------------------------------------------

    def _begun(self, cycle: RequestResponseCycle) -> bool:
        """False: it is the application's."""
        plain, scope = self._plain, cast("Scope", cycle.scope)
        agent = None if plain is None else plain.agent_of(scope)
        if plain is None or agent is None:
            return False
        try:
            begun = plain.begin(agent, scope, bytes(cycle.body))
        except Exception:
            log.exception("plain_message_failed")  # the application meets it again, and answers it
            return False
        if begun is None:
            return False
        begun.asked.add_done_callback(lambda _asked: self._go_on(plain, cycle, begun))
        return True

    def _go_on(self, plain: PlainMessages, cycle: RequestResponseCycle, begun: Begun) -> None:
        try:
            admission = plain.accepted(begun)
            response = None if admission is None else plain.answer(begun, admission)
        except Exception:
            log.exception("plain_message_failed", request_id=begun.request_id)
            admission = response = None
        if admission is None or response is None:
            plain.hand_over(begun, cast("Scope", cycle.scope))
            self._start(cycle, self.app)
            return
        if not response.whole(Answering(cast("Send", cycle.send), begun.request_id)):
            self._start(cycle, _Identified(response, begun.request_id))
        plain.conclude(begun, admission)


class _Identified:
    """An answer as an application, for the caller to whom it cannot go in one piece."""

    def __init__(self, response: Response, request_id: str) -> None:
        self._response, self._request_id = response, request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._response(scope, receive, Answering(send, self._request_id))
