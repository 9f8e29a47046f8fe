"""A plain message, accepted without a task, coroutines or a request object: `post_message` and the request log in one.

Called by `ingress.connection` with a request that is there as a whole. It takes what is nearly always sent: a key known
a moment ago, a body without anything unusual, no repeat, no recorded trace. What comes of it is the same to the byte,
answer, job, line and numbers (tests/ingress/test_plain.py), and made by the same functions. What is refused, or
could not be asked of Redis, goes on in the application under the same job id: nothing is accepted twice.
"""

import time

import msgspec
from starlette.routing import Route
from starlette.types import Scope

from agents.api import Agent
from ingress import metrics
from ingress.admission import Begun, admitting, message_limits, told
from ingress.auth import Caller
from ingress.limits import rate_headers
from ingress.message import plain_message
from ingress.request_log import request_id_of
from ingress.requests import first_headers, header
from ingress.responses import POLL_AFTER_S, Encoded, job_path, job_response
from ingress.routes.messages import events_url, payload_of
from ingress.state import Ingress
from shared.errors import Unavailable
from shared.jobs import JobRecord, JobState, rfc3339
from shared.scripts import NO_REPEAT, Admission, admission_of
from shared.telemetry import logs, tracing

_REPEATS = frozenset({b"idempotency-key", b"x-stainless-retry-count"})
"""Headers by which a message may be one that was sent before (`ingress.repeats`)."""
_ROOM = {
    "id": "<id>",
    "conversation_id": "<conversation>",
    "user_id": "<user>",
    "position": "1234567",
    "created_at": rfc3339(0),
    "events_url": "<events>",
}
"""Members of a job's resource that differ from one accepted message to the next, as they stand in its form."""
_WITH_QUOTES = frozenset({"conversation_id", "user_id", "events_url"})
"""Those that a caller chose, or may be null: put in as JSON."""
_POLL_AFTER = str(POLL_AFTER_S)
_json = msgspec.json.Encoder().encode


class PlainMessages:
    """`begin`, then when Redis has answered `accepted`, and after the answer `conclude`, or else `hand_over`."""

    def __init__(self, ingress: Ingress, route: Route) -> None:
        self._ingress, self._route = ingress, route.path
        self._forms = {name: _form(name) for name in ingress.agents}
        self._agents = {
            str(route.url_path_for(route.name, agent_id=name)): agent for name, agent in ingress.agents.items()
        }

    def agent_of(self, scope: Scope) -> Agent | None:
        """Whom a request is a message to; None: it is something else, or to nobody."""
        return self._agents.get(scope["path"]) if scope["method"] == "POST" else None

    def begin(self, agent: Agent, scope: Scope, raw: bytes) -> Begun | None:
        """Ask Redis to accept it. None: nothing was asked."""
        started_ns, ingress, headers = time.perf_counter_ns(), self._ingress, first_headers(scope)
        known = ingress.api_keys.at_hand(headers.get(b"authorization", b""))
        if known is None or not known[1].may("chat") or ingress.pressure.full or not _REPEATS.isdisjoint(headers):
            return None
        message = plain_message(raw, ingress.settings) if len(raw) <= ingress.settings.max_body_bytes else None
        if message is None:
            return None
        trace = scope["trace"] = tracing.of_request(header(scope, b"traceparent"))
        if trace.sampled:
            return None
        sha256, principal = known
        caller, request_id = Caller(principal.tenant, sha256, principal.terms), request_id_of(headers)
        how = admitting(ingress, caller, agent, NO_REPEAT, ttl_s=message.ttl_s, policy=message.policy)
        payload = payload_of(caller, agent, message, trace=trace.headers(), request_id=request_id)
        limits = message_limits(ingress, caller, payload)
        try:
            asked = ingress.intake.asked(
                payload,
                ttl_s=how.ttl_s,
                enqueued_ms=time.time_ns() // 1_000_000,
                policy=how.policy,
                merge_window_s=how.merge_window_s,
                limits=limits,
            )
        except Unavailable:
            return None
        metrics.in_progress.now += 1
        return Begun(request_id, started_ns, trace, payload, limits, asked)

    def accepted(self, begun: Begun) -> Admission | None:
        """What Redis decided, if it is that; None: the application has to go on with it."""
        if begun.asked.exception() is None:
            begun.admission = admission_of(begun.limits, begun.asked.result())
            if begun.admission.outcome == "accepted":
                return begun.admission
        return None

    def answer(self, begun: Begun, admission: Admission) -> Encoded:
        payload, job_id, user_id = begun.payload, admission.job_id, admission.user_id
        path = job_path(job_id)
        shown = self._forms[payload.agent] % {
            "id": job_id,
            "conversation_id": _json(payload.conversation_id).decode(),
            "user_id": "null" if user_id is None else _json(user_id).decode(),
            "position": admission.position,
            "created_at": rfc3339(admission.created_us),
            "events_url": _json(events_url(self._ingress, payload.tenant, job_id)).decode(),
        }
        headers = {"cache-control": "no-store", "retry-after": _POLL_AFTER, "location": path}
        if admission.windows:
            headers |= rate_headers(admission.windows)
        return Encoded(shown.encode(), 202, headers)

    def conclude(self, begun: Begun, admission: Admission) -> None:
        """It was accepted, and has its answer: its numbers and its line."""
        seconds = (time.perf_counter_ns() - begun.started_ns) / 1e9
        metrics.in_progress.now -= 1
        metrics.count_admission(begun.payload.agent, admission.outcome)
        metrics.count_request(self._route, "POST", 202, seconds)
        line = {
            "request_id": begun.request_id,
            "tenant": begun.payload.tenant,
            **told(begun.payload, admission),
            "method": "POST",
            "route": self._route,
            "status": 202,
            "duration_ms": round(seconds * 1000, 3),
        }
        logs.complete("request", line)

    def hand_over(self, begun: Begun, scope: Scope) -> None:
        """The application goes on with it."""
        metrics.in_progress.now -= 1
        scope["request_id"], scope["started_ns"], scope["begun"] = begun.request_id, begun.started_ns, begun


def _form(agent: str) -> str:
    """The resource of a job just accepted, with room for what differs: made of one, so that it says the same.

    Raises ValueError, at start, when a job's resource has become another one than this knows.
    """
    record = JobRecord(
        id=_ROOM["id"],
        tenant="",
        agent=agent,
        conversation_id=_ROOM["conversation_id"],
        user_id=_ROOM["user_id"],
        state=JobState.QUEUED,
        created_us=0,
        position=int(_ROOM["position"]),
    )
    form = bytes(job_response(record, events_url=_ROOM["events_url"]).body).decode().replace("%", "%%")
    for name, room in _ROOM.items():
        quoted = f'"{room}"' if name in _WITH_QUOTES else room
        if form.count(quoted) != 1:
            raise ValueError(f"the resource of a job has `{name}` not once")
        form = form.replace(quoted, f"%({name})s")
    return form
