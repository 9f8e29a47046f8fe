"""One model call over HTTP: authorise → read → decide → wait → answer, with whatever fault is due.

The endpoints are plain ASGI apps and speak through a `Dialect`; what differs between providers is there. A call that
was taken on is always booked, even when the caller leaves or this process stops.
"""

from collections.abc import Iterable, Mapping

from starlette.types import Receive, Scope, Send

from ops.standin.answer import Answer
from ops.standin.ask import Ask, Unreadable
from ops.standin.behaviour import Behaviour, Fault, Rule
from ops.standin.books import Books, OpenCall
from ops.standin.caller import Caller, Callers, Header
from ops.standin.delivery import deliver, until
from ops.standin.dialects.dialect import Counting, Dialect, Ids

_JSON: Header = (b"content-type", b"application/json")
_EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)


class Standin:
    """What all calls of one process share."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.books = Books()
        self.callers = Callers()


class Endpoint:
    """`POST` of one dialect: a model call."""

    def __init__(self, dialect: Dialect, standin: Standin) -> None:
        self.dialect = dialect
        self.standin = standin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = Caller(scope, receive, send, self.standin.callers)
        try:
            await self._authorised(caller, Ids.new(self.dialect.id_prefix))
        finally:
            caller.let_go()

    async def _authorised(self, caller: Caller, ids: Ids) -> None:
        if not caller.has_key():
            await self._refuse(caller, ids, 401, "No API key was given.", reason="invalid_api_key")
        elif (body := await caller.body()) is not None:
            try:
                ask = self.dialect.read(body)
            except Unreadable as error:
                await self._refuse(caller, ids, 400, str(error), reason=error.reason)
            else:
                await self._read(caller, ids, ask)

    async def _read(self, caller: Caller, ids: Ids, ask: Ask) -> None:
        rule, fault = self.standin.behaviour.decide(ask)
        with self.standin.books.open(
            ask,
            provider=self.dialect.provider,
            operation=self.dialect.operation,
            call_id=ids.call_id,
            request_id=ids.request_id,
        ) as call:
            call.fault = None if fault is None else fault.label
            if not await self._left_while_waiting(caller, rule):
                await self._decided(caller, ids, call, rule, fault)

    async def _left_while_waiting(self, caller: Caller, rule: Rule) -> bool:
        if rule.held and await caller.gone_before(self.standin.behaviour.replaced):
            return True
        if rule.gather and await caller.gone_before(self.standin.books.gathered(rule.gather)):
            return True
        return rule.latency_ms > 0 and await caller.gone_within(rule.latency_ms / 1000)

    async def _decided(self, caller: Caller, ids: Ids, call: OpenCall, rule: Rule, fault: Fault | None) -> None:
        if fault is not None and (status := _error_status(fault, call.ask)) is not None:
            call.reject()
            message = f"The stand-in was told to answer {status}."
            await self._refuse(caller, ids, status, message, reason=fault.code, headers=_fault_headers(fault))
            return
        if fault is not None and fault.hang:
            await caller.gone_within(None)
            call.close("hung")
            return
        answer = self.dialect.answer(call.ask, rule, None if fault is None else fault.finish)
        call.usage = answer.usage
        if call.ask.stream:
            await self._stream(caller, ids, call, rule, fault, answer)
        else:
            await self._whole(caller, ids, call, rule, fault, answer)

    async def _stream(
        self, caller: Caller, ids: Ids, call: OpenCall, rule: Rule, fault: Fault | None, answer: Answer
    ) -> None:
        await caller.start(200, (*_EVENT_STREAM, self._request_id(ids), *_headers(rule.headers)))
        call.sent_tokens = answer.usage.reasoning_tokens  # generated before anything is shown
        frames = self.dialect.frames(call.ask, answer, ids)
        if fault is None or fault.kind == "finish":
            await deliver(frames, rule, caller, call)
            return
        shown = answer.usage.output_tokens - answer.usage.reasoning_tokens
        strikes_at = max(1, shown // 2) if fault.after_tokens is None else fault.after_tokens
        if await deliver(until(frames, strikes_at), rule, caller, call):
            await self._break_stream(caller, ids, call, fault)

    async def _break_stream(self, caller: Caller, ids: Ids, call: OpenCall, fault: Fault) -> None:
        if fault.stall_stream:
            await caller.gone_within(None)
            call.close("hung")
        elif fault.cut_stream:
            call.close("cut")
            await caller.send(b"", more=True)  # the head of the response, should nothing have been sent before
        elif fault.end_early:
            call.close("cut")
            await caller.send(b"", more=False)
        else:
            call.close("fault")
            broken = self.dialect.stream_error(ids) if fault.stream_error else self.dialect.broken_event()
            await caller.send(broken, more=False)

    async def _whole(
        self, caller: Caller, ids: Ids, call: OpenCall, rule: Rule, fault: Fault | None, answer: Answer
    ) -> None:
        """A fault within the reply breaks off the JSON half-way; its output was generated, and is billed, in full."""
        body = self.dialect.whole(call.ask, answer, ids)
        half = body[: len(body) // 2]
        call.sent_tokens = answer.usage.output_tokens
        if fault is None or fault.kind == "finish":
            call.close("served")
            await self._json(caller, ids, 200, body, _headers(rule.headers))
        elif fault.malformed or fault.end_early:
            call.close("cut" if fault.end_early else "fault")
            await self._json(caller, ids, 200, half)
        else:
            if fault.cut_stream:
                call.close("cut")
            await caller.start(200, (_JSON, (b"content-length", b"%d" % len(body)), self._request_id(ids)))
            await caller.send(half, more=True)
            if fault.stall_stream:
                await caller.gone_within(None)
                call.close("hung")

    async def _refuse(
        self,
        caller: Caller,
        ids: Ids,
        status: int,
        message: str,
        *,
        reason: str | None = None,
        headers: Iterable[Header] = (),
    ) -> None:
        await self._json(caller, ids, status, self.dialect.error(status, message, ids, reason), headers)

    async def _json(self, caller: Caller, ids: Ids, status: int, body: bytes, headers: Iterable[Header] = ()) -> None:
        length = (b"content-length", b"%d" % len(body))
        await caller.start(status, (_JSON, length, self._request_id(ids), *headers))
        await caller.send(body, more=False)

    def _request_id(self, ids: Ids) -> Header:
        return self.dialect.request_id_header, ids.request_id.encode()


class CountEndpoint(Endpoint):
    """`POST` that counts the tokens of a request instead of answering it; free, so neither booked nor steered."""

    def __init__(self, dialect: Counting, standin: Standin) -> None:
        super().__init__(dialect, standin)
        self.counting = dialect

    async def _read(self, caller: Caller, ids: Ids, ask: Ask) -> None:
        await self._json(caller, ids, 200, self.counting.counted(ask))


def _error_status(fault: Fault, ask: Ask) -> int | None:
    """A provider that fails within an answer that is not streamed answers 500."""
    return 500 if fault.stream_error and not ask.stream else fault.status


def _fault_headers(fault: Fault) -> Iterable[Header]:
    if fault.retry_after_s is not None:
        yield b"retry-after", f"{fault.retry_after_s:g}".encode()
    yield from _headers(fault.headers)


def _headers(headers: Mapping[str, str]) -> Iterable[Header]:
    return ((name.lower().encode(), value.encode()) for name, value in headers.items())
