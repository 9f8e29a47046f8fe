"""The ingress's schemas, from the types it works with, and the examples the document shows."""

from collections.abc import Mapping
from typing import Any

from ingress.body import MessageBody
from ingress.openapi.describe import Schema, event, record, ref
from ingress.openapi.openai_schemas import openai_components
from ingress.openapi.pieces import ABOUT, EXAMPLE_ID, HEALTH, UUID
from ingress.openapi.schemas import of_model, of_resource, of_struct
from shared.config import Settings
from shared.jobs import JobError, JobRecord, JobState, Usage
from shared.wire import EventType

QUEUED = JobRecord(
    id=EXAMPLE_ID,
    tenant="acme",
    agent="support",
    conversation_id="0192f0c1-7a3c-7d02-8e55-91c0a7b3d114",
    user_id="u-17",
    state=JobState.QUEUED,
    created_us=1_795_246_200_000_001,
    position=0,
    metadata={"channel": "web"},
)
DONE = JobRecord(
    id=QUEUED.id,
    tenant=QUEUED.tenant,
    agent=QUEUED.agent,
    conversation_id=QUEUED.conversation_id,
    user_id=QUEUED.user_id,
    state=JobState.SUCCEEDED,
    created_us=QUEUED.created_us,
    started_us=QUEUED.created_us + 2_100,
    finished_us=QUEUED.created_us + 941_000,
    attempts=1,
    reply="You can reset it under Settings, Security.",
    usage=Usage(input_tokens=212, output_tokens=11, cached_tokens=128),
    cost_nano_usd=123_450,
    metadata=QUEUED.metadata,
)
EVENTS_URL = f"/v1/jobs/{EXAMPLE_ID}/events?token=acme.h0nUq3f0Qm6bC2rT9yWk1g"
MESSAGES: Mapping[str, Any] = {
    "first": {"message": "How do I reset my password?", "user_id": "u-17", "metadata": {"channel": "web"}},
    "next": {"message": "And on my phone?", "conversation_id": QUEUED.conversation_id, "user_id": "u-17", "ttl_s": 60},
}


def accepted(record_: JobRecord) -> dict[str, Any]:
    """The answer to a message, as an example."""
    return {**record_.resource(), "events_url": EVENTS_URL}


def components(settings: Settings) -> Mapping[str, Schema]:
    done = DONE.resource()
    limits: dict[str, Schema] = {
        "message": {"maxLength": settings.max_message_chars},
        "ttl_s": {"minimum": 1, "maximum": settings.max_ttl_s},
    }
    return {
        **of_model(MessageBody, limits),
        "Job": of_resource(done, JobRecord, id=UUID, usage={"anyOf": [ref("Usage"), {"type": "null"}]}),
        "AcceptedJob": {"allOf": [ref("Job"), record({"events_url": _EVENTS_URL})]},
        "JobState": {"type": "string", "description": "The last six are final.", "enum": [*JobState]},
        "JobError": of_struct(JobError),
        "Usage": of_resource(done["usage"], Usage),
        "JobEvent": {
            "description": "One event of a job's stream.",
            "oneOf": [event(*each) for each in _EVENTS.items()],
        },
        "Agent": _AGENT,
        "Health": HEALTH,
        "About": ABOUT,
        **openai_components(settings),
    }


_EVENTS_URL: Schema = {
    "type": "string",
    "format": "uri-reference",
    "description": "The job's events, for whoever holds it: made for an EventSource, which sends no header.",
}
_AGENT: Schema = record(
    {
        "id": {"type": "string"},
        "object": {"const": "agent"},
        "label": {"type": "string"},
        "description": {"type": "string"},
    }
)
_NUMBER: Schema = {"type": "integer"}
_EVENTS: dict[str, Schema] = {
    EventType.STARTED: record({"attempt": _NUMBER}, description="An attempt began."),
    EventType.DELTA: record({"delta": {"type": "string"}}, description="More of the reply."),
    EventType.RESET: record(
        {"attempt": _NUMBER}, description="The text so far is void; another follows, or another attempt."
    ),
    EventType.RETRYING: record(
        {"retry_in_ms": _NUMBER, "error": ref("JobError")}, description="The attempt failed; another one comes."
    ),
    "events.truncated": record({"after": _NUMBER, "missing": _NUMBER}, description="These are not kept any more."),
    **{f"job.{state}": {"description": "The end.", **ref("Job")} for state in JobState if state.ended},
}
