"""`/v1/channels/{channel_id}/flows`: the screens of a WhatsApp Flow, asked for while a person fills a form.

The phone waits for the answer, so it never goes through the queue: the channel's agent says the next screen
(`Agent.flow`), a function without the world, in a thread and within `ANSWER_S`. Statuses are Meta's: 421 the phone
should fetch our key anew, 427 the form is over, 432 the request is not Meta's.
"""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response

from agents.api import FlowOver, FlowStep, Screen
from ingress.channels.directory import OpenChannel
from ingress.channels.flow_crypto import CannotDecrypt, Exchange, opened
from ingress.channels.routes import channel_of, hook_of
from ingress.limits import MINUTE_S, too_many
from ingress.requests import read_body
from ingress.state import Ingress, ingress_of
from shared import keys
from shared.channels.reading import Malformed, member, optional
from shared.channels.whatsapp import WhatsAppCredentials, check_hub_signature
from shared.errors import BadSignature, NotFound, RateLimited, Unavailable
from shared.rates import Standing, Window
from shared.scripts import Script
from shared.telemetry import context

log = structlog.get_logger(__name__)

THREADS = 32
"""Of forms alone: an agent that hangs keeps one until it ends, and names are resolved in the process's own threads."""
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="flow")
ANSWER_S = 3.0
"""Longest time for an agent's screen; Meta counts an endpoint that takes longer than a few seconds as failing."""
CANNOT_DECRYPT, TOKEN_OVER, BAD_SIGNATURE = 421, 427, 432
_enter = Script("stranger")
_ACTIONS = frozenset({"INIT", "data_exchange", "BACK"})


async def exchange_flow(request: Request) -> Response:
    channel = await channel_of(request)
    credentials = channel.credentials
    if not isinstance(credentials, WhatsAppCredentials) or not credentials.flow_keys:
        raise NotFound("This channel has no Flows.")
    body = await read_body(request, channel.adapter.max_body_bytes)
    try:
        check_hub_signature(hook_of(request, channel, body), credentials)
    except BadSignature:
        return _bare(BAD_SIGNATURE)
    try:
        exchange = opened(body, credentials.flow_keys)
    except CannotDecrypt as error:
        log.warning("flow_not_decrypted", reason=str(error))
        return _bare(CANNOT_DECRYPT)
    status, answer = await _answer(ingress_of(request), channel, exchange.request)
    return _sealed(exchange, answer, status)


async def _answer(ingress: Ingress, channel: OpenChannel, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """HTTP status and what is said. Raises Unavailable for an agent that fails."""
    if asked.get("action") == "ping":
        return 200, {"data": {"status": "active"}}
    data = asked.get("data")
    if isinstance(data, dict) and "error" in data:  # of a screen that we answered before
        log.warning("flow_screen_refused", error=str(data.get("error"))[:200], screen=str(asked.get("screen"))[:64])
        return 200, {"data": {"acknowledged": True}}
    try:
        step = _step(channel, asked)
    except Malformed as error:
        log.warning("flow_step_malformed", fault=str(error))
        return TOKEN_OVER, {"error_msg": "This form cannot be continued."}
    context.bind(flow=step.action, outcome="flow")
    await _within_rate(ingress, channel, step.token)
    match await _screen(ingress, channel, step):
        case FlowOver(message=message):
            return TOKEN_OVER, {"error_msg": message}
        case Screen(name=name, data=shown):
            return 200, {"screen": name, "data": dict(shown)}


async def _within_rate(ingress: Ingress, channel: OpenChannel, token: str) -> None:
    """A person's own limit for forms. The token says whose form it is: `<user id>:<anything>`; else it is the person.
    Raises RateLimited or Unavailable."""
    terms, tenant = channel.record.terms, channel.record.tenant
    if terms.unlimited:
        return
    whose = hashlib.sha256(token.rpartition(":")[0].encode() or token.encode()).hexdigest()[:32]
    window = Window("endpoint", keys.rate("endpoint", "flows", tenant, whose), terms.rates.flows_user_per_min, MINUTE_S)
    argv = [window.limit, window.length_s * 1_000_000]
    entry, remaining, left_us = await _enter(ingress.commands, [window.key], argv)
    if not entry:
        full = Standing(window, remaining, left_us)
        raise RateLimited(too_many(full), level="endpoint", retry_after_s=full.left_s)


def _step(channel: OpenChannel, asked: dict[str, Any]) -> FlowStep:
    action, token = member(asked, "action", str), member(asked, "flow_token", str)
    if action not in _ACTIONS:
        raise Malformed("`action` is not known")
    return FlowStep(
        action=action,  # type: ignore[arg-type]  # one of _ACTIONS
        screen=optional(asked, "screen", str),
        data=optional(asked, "data", dict) or {},
        token=token,
        tenant=channel.record.tenant,
    )


async def _screen(ingress: Ingress, channel: OpenChannel, step: FlowStep) -> Screen | FlowOver:
    agent = ingress.agents.get(channel.record.agent)
    if agent is None:
        return FlowOver()
    try:
        async with asyncio.timeout(ANSWER_S):
            return await asyncio.get_running_loop().run_in_executor(_threads, agent.flow, step)
    except TimeoutError:
        log.error("flow_too_slow", agent=agent.id, screen=step.screen)  # noqa: TRY400 - the agent's fault, without a trace
        raise Unavailable("the agent did not say the next screen in time") from None


def _sealed(exchange: Exchange, answer: dict[str, Any], status: int) -> Response:
    return Response(exchange.seal(answer), status, media_type="text/plain")


def _bare(status: int) -> Response:
    context.bind(problem={CANNOT_DECRYPT: "cannot_decrypt", BAD_SIGNATURE: "bad_signature"}[status])
    return Response(status_code=status)
