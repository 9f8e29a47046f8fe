"""The routes of the stand-in messengers. Like its models they can be steered by whoever reaches them: loopback only."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from ops.messengers.books import Books, Entry, Fault, StatusHook
from ops.messengers.providers import Api, Refusal, Reply, Slack, Telegram, Twilio, WhatsApp, Wire, Wish
from ops.messengers.statuses import Teller

HANG_S = 600.0


class Messengers:
    def __init__(self) -> None:
        self.books = Books()
        self._teller = Teller(self.books)
        self._telling: set[asyncio.Task[None]] = set()

    def mount(self) -> Mount:
        routes = [
            Route("/whatsapp/{version}/{number}/messages", self._api(WhatsApp()), methods=["POST"]),
            Route("/twilio/2010-04-01/Accounts/{account}/Messages.json", self._api(Twilio()), methods=["POST"]),
            Route("/telegram/bot{token}/{method}", self._api(Telegram()), methods=["POST"]),
            Route("/slack/chat.postMessage", self._api(Slack()), methods=["POST"]),
            Route("/_served", self._served, methods=["GET"]),
            Route("/_served", self._forget, methods=["DELETE"]),
            Route("/_faults", self._misbehave, methods=["POST"]),
            Route("/_hooks", self._hook, methods=["POST"]),
        ]
        return Mount("/messengers", routes=routes)

    def _api(self, api: Api) -> Any:
        async def endpoint(request: Request) -> Response:
            wire = Wire(request.path_params, request.headers, await request.body())
            try:
                wish = api.read(wire)
            except Refusal as refusal:
                self.books.note(_entry(api, Wish("", ""), 0, outcome=f"refused {refusal.code}"))
                return _response(api.no(refusal))
            return await self._answer(api, wire, wish)

        return endpoint

    async def _answer(self, api: Api, wire: Wire, wish: Wish) -> Response:
        fault = None if wish.working else self.books.fault_for(api.name, wish.text)
        if fault is not None and fault.kind == "refuse":
            return self._refused(api, wish, Refusal(fault.status, fault.code, "asked for", fault.retry_after_s))
        if fault is not None and not fault.taken:
            return await _withheld(fault, None)
        wait_s = None if wish.working else self.books.too_fast(api.name, wish.to, *api.pace)
        if wait_s is not None:
            return self._refused(api, wish, Refusal(*api.too_fast, "too fast", max(1.0, wait_s)))
        number = self.books.number()
        made, reply = api.yes(wish, number)
        entry = self.books.note(_entry(api, wish, number, outcome="taken", id=made))
        later = fault.code if fault is not None and fault.kind == "fail_later" else None
        if fault is not None and fault.kind == "status_first":
            await self._teller.tell(wire, wish, entry)
        elif not wish.working:
            task = asyncio.create_task(self._teller.tell(wire, wish, entry, later))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        return await _withheld(fault, reply)

    def _refused(self, api: Api, wish: Wish, refusal: Refusal) -> Response:
        self.books.note(_entry(api, wish, 0, outcome=f"refused {refusal.code}"))
        return _response(api.no(refusal))

    async def _served(self, _request: Request) -> Response:
        return Response(msgspec.json.encode(self.books.entries), media_type="application/json")

    async def _forget(self, _request: Request) -> Response:
        self.books.reset()
        return Response(status_code=204)

    async def _misbehave(self, request: Request) -> Response:
        try:
            self.books.misbehave(msgspec.json.decode(await request.body(), type=list[Fault]))
        except msgspec.MsgspecError as error:
            return Response(str(error), 422)
        return Response(status_code=204)

    async def _hook(self, request: Request) -> Response:
        try:
            self.books.hooks |= msgspec.json.decode(await request.body(), type=dict[str, StatusHook])
        except msgspec.MsgspecError as error:
            return Response(str(error), 422)
        return Response(status_code=204)


def _entry(api: Api, wish: Wish, number: int, *, outcome: str, id: str | None = None) -> Entry:  # noqa: A002 - its name
    reference = wish.reference or (wish.status_url or "").partition("reference=")[2] or None
    return Entry(
        number=number,
        provider=api.name,
        kind="working" if wish.working else "message",
        to=wish.to,
        text=wish.text,
        outcome=outcome,
        id=id,
        reference=reference,
        quoted=wish.quoted,
        template=wish.template,
        thread=wish.thread,
    )


async def _withheld(fault: Fault | None, reply: Reply | None) -> Response:
    """The answer, unless a fault keeps it back."""
    if fault is not None and fault.kind == "hang":
        await asyncio.sleep(HANG_S)
    if reply is None or (fault is not None and fault.kind in {"cut", "hang"}):
        return StreamingResponse(_half(), 200, {"content-length": "1000"}, "application/json")
    return _response(reply)


async def _half() -> AsyncIterator[bytes]:
    """Less than was announced: the server ends the connection."""
    yield b"{"


def _response(reply: Reply) -> Response:
    return Response(
        msgspec.json.encode(reply.body), reply.status, headers=dict(reply.headers), media_type="application/json"
    )
