"""The console's schemas, from the types it works with, and the examples the document shows."""

from collections.abc import Mapping

from ingress.openapi import pieces
from ingress.openapi.describe import Schema, nullable, record, ref
from ingress.openapi.schemas import of_model, of_resource, of_struct
from ops.console.asks import BulkBody, RetryBody
from ops.console.openapi import alerts, channels, deliveries, profiles, tenants, users
from ops.console.openapi.usage import usage_components
from ops.dead.books import DeadDetail, DeadJob, DeadRun
from ops.queues import QueueStats
from shared.config import Settings
from shared.jobs import JobError, Usage

DIED = DeadJob(
    tenant="acme",
    job_id=pieces.EXAMPLE_ID,
    run=1,
    state="dead",
    agent="support",
    queue="default",
    conversation_id="0192f0c1-7a3c-7d02-8e55-91c0a7b3d114",
    user_id="u-17",
    attempts=4,
    error=JobError(code="upstream_unavailable", message="The provider did not answer.", retryable=True),
    created_us=1_795_246_200_000_001,
    started_us=1_795_246_200_002_100,
    finished_us=1_795_246_241_000_001,
    disposition="open",
    resolved_us=None,
    resolved_by=None,
    retry_run=None,
    retry_position=None,
)
_RUN = DeadRun(
    run=1,
    state="dead",
    agent="support",
    attempts=4,
    error=DIED.error,
    created_us=DIED.created_us,
    started_us=DIED.started_us,
    finished_us=DIED.finished_us,
    payload={"message": "How do I reset my password?"},
    attempt_errors=[{"attempt": 1, "code": "upstream_unavailable"}],
    traceback=None,
    resolved_us=None,
    resolved_by=None,
    retry_position=None,
    retry_payload=None,
)
DETAIL = DeadDetail(dead=DIED, metadata={"channel": "web"}, usage=Usage(), cost_nano_usd=98_700, runs=[_RUN])
RETRIED = {
    "id": DIED.job_id,
    "object": "dead_job.retry",
    "tenant": "acme",
    "outcome": "queued",
    "run": 2,
    "position": 0,
    "job": f"/v1/jobs/{DIED.job_id}",
}
CURSOR: Schema = {**nullable({"type": "string"}), "description": "For the next page; null on the last one."}
STATS = QueueStats(
    queue="default",
    depth=12,
    due=3,
    delayed=1,
    in_flight=250,
    oldest_age_s=0.42,
    live_workers=2,
    slots=2_000,
    slots_per_worker=1_000,
    utilisation=0.125,
    desired_workers=1,
)
_HEAD: dict[str, Schema] = {
    "id": pieces.UUID,
    "object": {"const": "dead_job.retry"},
    "tenant": {"type": "string"},
}
_RETRY: Schema = {
    "description": "What became of a retry.",
    "anyOf": [
        record(
            {
                **_HEAD,
                "outcome": {"enum": ["queued", "repeated"]},
                "run": {"type": "integer"},
                "position": {"type": "integer", "description": "In its conversation; 0 is the head."},
                "job": {"type": "string", "description": "Its path at the ingress."},
            }
        ),
        record(
            {
                **_HEAD,
                "outcome": {"const": "refused"},
                "error": record({"code": {"type": "string"}, "message": {"type": "string"}}),
            }
        ),
    ],
}


def components(_settings: Settings) -> Mapping[str, Schema]:
    detail, run = DETAIL.resource(), DETAIL.resource()["runs"][0]
    dead = of_resource(DIED.resource(), DeadJob, id=pieces.UUID)
    return {
        **of_model(RetryBody),
        **of_model(BulkBody),
        "DeadJob": dead,
        "DeadJobDetail": of_resource(
            detail,
            DeadDetail,
            DeadJob,
            id=pieces.UUID,
            runs={"type": "array", "items": ref("DeadRun")},
        ),
        "DeadRun": of_resource(run, DeadRun),
        "Retry": _RETRY,
        "JobError": of_struct(JobError),
        "Usage": of_struct(Usage),
        "QueueStats": of_struct(QueueStats),
        **usage_components(),
        **tenants.components(),
        **channels.components(),
        **deliveries.components(),
        **alerts.components(),
        **users.components(),
        **profiles.components(),
        "Health": pieces.HEALTH,
        "About": pieces.ABOUT,
    }
