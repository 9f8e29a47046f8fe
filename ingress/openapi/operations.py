"""The ingress's operations, described: what a caller should know and the code cannot say.

A test fails for a route that has no entry here and for an entry that has no route.
"""

from dataclasses import replace

from ingress.body import parse_message
from ingress.openapi import channels, openai, pieces
from ingress.openapi.asking import IDEMPOTENCY_KEY, RATES, REPLAYED, RETRY_COUNT
from ingress.openapi.components import DONE, MESSAGES, QUEUED, accepted, components
from ingress.openapi.describe import (
    Answer,
    Api,
    Body,
    Header,
    Operation,
    Parameter,
    Schema,
    Security,
    listing,
    ref,
)
from ingress.state import Ingress
from ingress.strangers import Attempt

_TEXT: Schema = {"type": "string"}
_LOCATION = Header(description="The job's path.", schema={"type": "string", "format": "uri-reference"})
_POLL_AFTER = Header(
    description="Seconds after which to ask again; only while the job has not ended.",
    schema={"type": "integer", "minimum": 0},
    always=False,
)
_OPEN = Header(description="`*`, where a read token was used.", schema={"const": "*"}, always=False)
_READING: tuple[Security, ...] = ("bearer", "read_token")
_EVENT_ID = r"^(?:[0-9]{1,18}|ended)$"

_LIST_AGENTS = Operation(
    id="list_agents",
    tag="Agents",
    summary="List the agents",
    description="The agents that messages can be sent to.",
    security=("bearer",),
    scope="chat",
    answers={
        200: Answer(
            description="All agents.",
            schema=listing(ref("Agent")),
            links={
                "message": {"operationId": "post_message", "parameters": {"agent_id": "$response.body#/data/0/id"}},
            },
        )
    },
)

_POST_MESSAGE = Operation(
    id="post_message",
    tag="Messages",
    summary="Send a message to an agent",
    description=(
        "The message becomes a job, and 202 means that it will end in one of its states, whatever happens to us. "
        "Messages of one conversation are answered in order.\n\n"
        "A repeat answers 200 with the job of the first try: the same `Idempotency-Key` (24 hours by default), or an "
        "SDK's own retry of the same body. It is no further message to any limit, and neither is a refused one."
    ),
    security=("bearer",),
    scope="chat",
    parameters=(
        Parameter(
            name="agent_id",
            where="path",
            description="As `GET /v1/agents` lists them.",
            schema={"type": "string", "pattern": "^[a-z][a-z0-9-]{0,62}$"},
            example="support",
        ),
        replace(IDEMPOTENCY_KEY, example="order-4711-greeting"),
        replace(RETRY_COUNT, example="0"),
        Parameter(
            name="X-Request-ID", where="header", description="Your name for this request in our logs.", schema=_TEXT
        ),
    ),
    body=Body(schema=ref("MessageBody"), examples=MESSAGES),
    answers={
        202: Answer(
            description="Accepted: a new job.",
            schema=ref("AcceptedJob"),
            headers={**pieces.NO_STORE, "Location": _LOCATION, "Retry-After": _POLL_AFTER},
            examples={"queued": accepted(QUEUED)},
            links={
                name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}}
                for name in ("get_job", "job_events", "cancel_job")
            },
        ),
        200: Answer(
            description="Accepted before: the job of the first try, as it is now.",
            schema=ref("AcceptedJob"),
            headers={
                **pieces.NO_STORE,
                "Location": _LOCATION,
                "Retry-After": _POLL_AFTER,
                "Idempotent-Replayed": REPLAYED,
            },
            examples={"done": accepted(DONE)},
        ),
    },
    raised_by=(Ingress.authenticate, parse_message),
    headers=RATES,
)

_GET_JOB = Operation(
    id="get_job",
    tag="Jobs",
    summary="Look at a job, or wait for its end",
    description=(
        "With `Prefer: wait=N` the answer comes when the job has ended, or after N seconds with the job as it is then."
    ),
    security=_READING,
    scope="chat",
    parameters=(
        pieces.job_id(),
        Parameter(
            name="Prefer",
            where="header",
            description="`wait=N` waits up to N seconds (RFC 7240). Other preferences are ignored.",
            schema=_TEXT,
            example="wait=20",
        ),
    ),
    answers={
        200: Answer(
            description="The job.",
            schema=ref("Job"),
            headers={
                **pieces.NO_STORE,
                "Retry-After": _POLL_AFTER,
                "Preference-Applied": Header(
                    description="How long it waited at most.",
                    schema={"type": "string", "pattern": r"^wait=\d+$"},
                    always=False,
                ),
                "Access-Control-Allow-Origin": _OPEN,
            },
            examples={"queued": QUEUED.resource(), "done": DONE.resource()},
        )
    },
    raised_by=(Ingress.authenticate_reader, Ingress.job_of),
)

_CANCEL_JOB = Operation(
    id="cancel_job",
    tag="Jobs",
    summary="Cancel a job",
    description=(
        "A job that waits is cancelled at once. One that runs is asked to stop: 202, and it ends `cancelled` unless it "
        "was done before. Repeating it changes nothing."
    ),
    security=("bearer",),
    scope="chat",
    parameters=(pieces.job_id(),),
    answers={
        200: Answer(
            description="It is cancelled.",
            schema=ref("Job"),
            headers=pieces.NO_STORE,
        ),
        202: Answer(
            description="It was asked to stop.",
            schema=ref("Job"),
            headers={**pieces.NO_STORE, "Location": _LOCATION, "Retry-After": _POLL_AFTER},
        ),
    },
    raised_by=(Ingress.job_of,),
)

_JOB_EVENTS = Operation(
    id="job_events",
    tag="Jobs",
    summary="Follow a job's events",
    description=(
        "Server-sent events: what has happened so far, then what happens, until the job has ended. The last event is "
        "`job.<state>` with the whole job. `id:` numbers the events; a client that comes back with `Last-Event-ID` "
        "goes on behind it. Going away costs nothing and never stops the job."
    ),
    security=_READING,
    scope="chat",
    parameters=(
        pieces.job_id(),
        Parameter(
            name="Last-Event-ID",
            where="header",
            description="The last event that was seen. An EventSource sends it by itself.",
            schema={"type": "string", "pattern": _EVENT_ID},
            example="12",
        ),
        Parameter(
            name="last_event_id",
            where="query",
            description="The same, for a client that cannot set headers. The header wins.",
            schema={"type": "string", "pattern": _EVENT_ID},
        ),
    ),
    answers={
        200: Answer(
            description="The stream.",
            schema=ref("JobEvent"),
            media_type="text/event-stream",
            headers={**pieces.NO_STORE, "Access-Control-Allow-Origin": _OPEN},
            examples={"a reply": 'id: 1\nevent: message.delta\ndata: {"delta":"You can"}\n\n'},
        ),
        204: Answer(
            description="The client has seen the last event: an EventSource stops coming back.",
            headers={**pieces.NO_STORE, "Access-Control-Allow-Origin": _OPEN},
        ),
    },
    raised_by=(Ingress.authenticate_reader, Ingress.job_of),
)

INGRESS = Api(
    title="Switchboard",
    summary="Send a message to an agent, and get its answer.",
    description=(
        "A message is accepted at once and becomes a job. Its reply is there when the job has ended: ask for it, wait "
        "for it, or follow its events. Every error is a problem (RFC 9457); its `type` is made for programs."
    ),
    tags={
        "Messages": "What agents are asked.",
        "Jobs": "What became of it.",
        "Channels": "What messengers' providers call.",
        "Agents": "Who answers.",
        "OpenAI": "The same for programs that use an OpenAI SDK: a model's name is an agent's id. Errors are OpenAI's.",
        "Health": "For platforms.",
        "About": "For whoever looks around; no key.",
    },
    operations={
        ("GET", "/"): pieces.about(),
        ("GET", "/health/live"): pieces.live(),
        ("GET", "/health/ready"): pieces.health(
            "ready",
            "Can it do its own work?",
            "Redis takes writes, and there are agents.",
            {"redis": "ok", "agents": "ok"},
        ),
        ("GET", "/health/stack"): pieces.health(
            "stack",
            "Can a message be answered?",
            "Everything it takes, a live worker included.",
            {"redis": "ok", "agents": "ok", "postgres": "ok", "workers:default": "ok"},
        ),
        ("GET", "/v1/agents"): _LIST_AGENTS,
        ("POST", "/v1/agents/{agent_id}/messages"): _POST_MESSAGE,
        ("GET", "/v1/jobs/{job_id}"): _GET_JOB,
        ("DELETE", "/v1/jobs/{job_id}"): _CANCEL_JOB,
        ("GET", "/v1/jobs/{job_id}/events"): _JOB_EVENTS,
        **channels.OPERATIONS,
        ("GET", "/metrics"): pieces.metrics("Health", Ingress.authenticate),
        **openai.OPERATIONS,
        **pieces.documents(),
    },
    components=components,
    secured_by=(Ingress.authenticate, Attempt.count),
)
