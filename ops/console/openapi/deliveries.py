"""The operations on endpoints and deliveries, described; `operations.py` lists them with the others."""

from collections.abc import Mapping
from typing import Any

from ingress.openapi import pieces
from ingress.openapi.describe import Body, Operation, Parameter, Schema, nullable, record, ref
from ingress.openapi.schemas import of_model, of_resource, of_struct
from ops.console.openapi.shapes import AT_US, PAGE, TENANT, all_of, located, one, operations, page, query
from ops.console.state import Console, tenant_of
from ops.deliveries.asks import DeliveriesQuery, EndpointBody, EndpointChange, RotateBody
from ops.deliveries.books import DeliveryBooks
from ops.deliveries.gate import Gate
from ops.deliveries.records import (
    Delivery,
    DeliveryDetail,
    DeliveryError,
    Endpoint,
    LogEntry,
    MessageStatus,
    NewSecret,
    ReplyPart,
)

_ENDPOINT = Endpoint(
    id=pieces.EXAMPLE_ID,
    tenant="acme",
    url="https://hooks.example.com/switchboard",
    description="orders",
    event_types=["job.succeeded"],
    format="switchboard",
    created_us=AT_US,
    created_by="key:3f9a0c55d1e2",
    disabled_us=None,
    disabled_why=None,
    failures=0,
    failing_since_us=None,
    paused_until_us=None,
    secrets=1,
)
_DELIVERY: dict[str, Any] = {
    "id": pieces.EXAMPLE_ID,
    "tenant": "acme",
    "kind": "webhook",
    "event_type": "job.succeeded",
    "url": _ENDPOINT.url,
    "endpoint_id": pieces.EXAMPLE_ID,
    "job_id": pieces.EXAMPLE_ID,
    "run": 1,
    "conversation_id": "c-1",
    "sequence": 7,
    "state": "retrying",
    "attempts": 1,
    "due_us": AT_US + 5_000_000,
    "created_us": AT_US,
    "finished_us": None,
    "error": DeliveryError("server_error", "answered 500", 500),
}
_RECORD = {
    "id": pieces.EXAMPLE_ID,
    "tenant": "acme",
    "agent": "support",
    "conversation_id": "c-1",
    "user_id": "u-17",
    "state": "succeeded",
    "created_us": AT_US,
    "finished_us": AT_US,
    "reply": "Hello!",
}
_LOGGED = LogEntry(
    attempt=1,
    ended_us=AT_US,
    outcome="failed",
    status=500,
    code="server_error",
    message="answered 500",
    latency_ms=41.5,
)
_SHORT = Delivery(**_DELIVERY)
_PART = ReplyPart(
    part=1,
    form="text",
    state="sent",
    resent=0,
    message_id="wamid.ID",
    began_us=AT_US,
    ended_us=AT_US,
    status="read",
    statuses=[MessageStatus(state="read", at_us=AT_US, error=None)],
)
_WHOLE = DeliveryDetail(**_DELIVERY, format="switchboard", body=_RECORD, log=[_LOGGED], parts=[])
_NEW = NewSecret(secret="whsec_…", overlap_s=86_400)  # noqa: S106 - no secret

_QUERY = query(
    DeliveriesQuery,
    {
        "tenant": TENANT,
        "state": "What has become of them.",
        "endpoint_id": "To this endpoint only.",
        "job_id": "Of this job only.",
        **PAGE,
    },
)
_SECRET: Schema = {"type": "string", "description": "Shown this once: `whsec_…`, as Standard Webhooks has it."}


def components() -> Mapping[str, Schema]:
    event = record(
        {
            "type": {"type": "string"},
            "timestamp": {"type": "string", "format": "date-time"},
            "sequence": {"type": "integer", "description": "Its place in the events of its conversation."},
            "data": {"type": "object", "description": "Of a job's event: the job, as `GET /v1/jobs/{id}` shows it."},
        },
        description="The body that receivers are sent.",
    )
    return {
        **of_model(EndpointBody),
        **of_model(EndpointChange),
        **of_model(RotateBody),
        "Endpoint": of_resource(_ENDPOINT.resource(), Endpoint, id=pieces.UUID),
        "NewEndpoint": of_resource(
            {**_ENDPOINT.resource(), "secret": _NEW.secret}, Endpoint, id=pieces.UUID, secret=_SECRET
        ),
        "SigningSecret": of_resource(_NEW.resource(), NewSecret, secret=_SECRET),
        "Delivery": of_resource(_SHORT.resource(), Delivery, id=pieces.UUID, paused=nullable(ref("ChannelPause"))),
        "ReplyPart": of_resource(
            _PART.resource(), ReplyPart, statuses={"type": "array", "items": ref("MessageStatus")}
        ),
        "MessageStatus": of_resource(_PART.resource()["statuses"][0], MessageStatus),
        "DeliveryDetail": of_resource(
            _WHOLE.resource(),
            DeliveryDetail,
            Delivery,
            id=pieces.UUID,
            event=event,
            log={"type": "array", "items": ref("DeliveryAttempt")},
            parts={"type": "array", "items": ref("ReplyPart")},
            paused=nullable(ref("ChannelPause")),
        ),
        "DeliveryAttempt": of_resource(_WHOLE.resource()["log"][0], LogEntry),
        "DeliveryError": of_struct(DeliveryError),
    }


def _id(name: str, what: str) -> Parameter:
    return Parameter(name=name, where="path", description=what, schema=pieces.UUID, example=pieces.EXAMPLE_ID)


_OF_ENDPOINT = (_id("endpoint_id", "The endpoint's id."), _QUERY["tenant"])
_OF_DELIVERY = (_id("delivery_id", "The delivery's id: its `webhook-id`."), _QUERY["tenant"])


_operation = operations("Deliveries", Console.desk)
_ENDPOINT_ANSWER = one("The endpoint.", "Endpoint", _ENDPOINT.resource())
_ROTATE = Body(schema=ref("RotateBody"), examples={"a week": {"overlap_s": 604_800}}, required=False)

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/v1/endpoints"): _operation(
        "list_endpoints",
        "List endpoints",
        "The newest first, disabled ones too.",
        {200: all_of("Endpoint", _ENDPOINT.resource())},
        parameters=(_QUERY["tenant"],),
    ),
    ("POST", "/v1/endpoints"): _operation(
        "create_endpoint",
        "Have events sent to a URL",
        "Each end of a job is posted there, signed (Standard Webhooks), at least once: receivers know repetitions by "
        "`webhook-id`. The answer is the only one that ever shows the secret.",
        {
            201: one(
                "Made.",
                "NewEndpoint",
                {**_ENDPOINT.resource(), "secret": _NEW.secret},
                headers=located(),
            )
        },
        parameters=(_QUERY["tenant"],),
        body=Body(
            schema=ref("EndpointBody"),
            examples={"one": {"url": _ENDPOINT.url, "event_types": ["job.succeeded", "job.dead"]}},
        ),
        raised_by=(DeliveryBooks.create, Gate.check, tenant_of),
    ),
    ("GET", "/v1/endpoints/{endpoint_id}"): _operation(
        "get_endpoint",
        "Look at an endpoint",
        "With how it has been doing.",
        {200: _ENDPOINT_ANSWER},
        parameters=_OF_ENDPOINT,
        raised_by=(DeliveryBooks.endpoint,),
    ),
    ("PATCH", "/v1/endpoints/{endpoint_id}"): _operation(
        "change_endpoint",
        "Change an endpoint",
        "What is not named stays. `disabled: false` enables it again; what failed meanwhile can be replayed.",
        {200: _ENDPOINT_ANSWER},
        parameters=_OF_ENDPOINT,
        body=Body(schema=ref("EndpointChange"), examples={"off": {"disabled": True}}),
        raised_by=(DeliveryBooks.change, DeliveryBooks.endpoint, Gate.check),
    ),
    ("DELETE", "/v1/endpoints/{endpoint_id}"): _operation(
        "remove_endpoint",
        "Remove an endpoint",
        "It is sent nothing any more; what waits for it fails. What it was sent stays in the log.",
        {200: _ENDPOINT_ANSWER},
        parameters=_OF_ENDPOINT,
        raised_by=(DeliveryBooks.remove, DeliveryBooks.endpoint),
    ),
    ("POST", "/v1/endpoints/{endpoint_id}/rotate"): _operation(
        "rotate_endpoint_secret",
        "Give an endpoint a new secret",
        "For `overlap_s` every request carries a signature by each of them. The answer is the only one that shows it.",
        {200: one("The new one.", "SigningSecret", _NEW.resource())},
        parameters=_OF_ENDPOINT,
        body=_ROTATE,
        raised_by=(DeliveryBooks.rotate, DeliveryBooks.endpoint),
    ),
    ("POST", "/v1/webhook-secret/rotate"): _operation(
        "rotate_default_secret",
        "Get the secret of callback URLs, or a new one",
        "What goes to a job's `callback_url` is signed with the tenant's default secret. The first call shows the one "
        "that has signed them all along; each further one makes another.",
        {200: one("The secret.", "SigningSecret", _NEW.resource())},
        parameters=(_QUERY["tenant"],),
        body=_ROTATE,
        raised_by=(DeliveryBooks.rotate_default, tenant_of),
    ),
    ("GET", "/v1/deliveries"): _operation(
        "list_deliveries",
        "List deliveries",
        "The newest first: webhooks, and alerts to Slack and by e-mail.",
        {200: page("Delivery", _SHORT.resource())},
        parameters=tuple(_QUERY.values()),
    ),
    ("GET", "/v1/deliveries/{delivery_id}"): _operation(
        "get_delivery",
        "Look at a delivery",
        "With what is sent, and each attempt.",
        {200: one("The delivery.", "DeliveryDetail", _WHOLE.resource())},
        parameters=_OF_DELIVERY,
        raised_by=(DeliveryBooks.find,),
    ),
    ("POST", "/v1/deliveries/{delivery_id}/replay"): _operation(
        "replay_delivery",
        "Send it again, now",
        "Under the same id, from the start of its schedule, whatever became of it. It passes others of its lane.",
        {202: one("Queued.", "DeliveryDetail", _WHOLE.resource())},
        parameters=_OF_DELIVERY,
        raised_by=(DeliveryBooks.replay, DeliveryBooks.find),
    ),
}
