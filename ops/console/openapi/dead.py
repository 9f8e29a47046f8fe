"""The operations on dead jobs, described; `operations.py` lists them with the others."""

from collections.abc import Mapping

from ingress.openapi import pieces
from ingress.openapi.describe import Answer, Body, Operation, Schema, record, ref
from ingress.openapi.schemas import of_model, of_resource
from ops.console.asks import BulkBody, ListQuery, OneQuery, RetryBody
from ops.console.openapi.shapes import PAGE, TENANT, one, operations, page, query
from ops.console.state import Console
from ops.dead.books import DeadBooks, DeadDetail, DeadJob, DeadRun
from ops.dead.edit import Editor
from ops.dead.retry import Retrier
from shared.errors import QueueFull, Unavailable
from shared.jobs import JobError, Usage

_DIED = DeadJob(
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
    error=_DIED.error,
    created_us=_DIED.created_us,
    started_us=_DIED.started_us,
    finished_us=_DIED.finished_us,
    payload={"message": "How do I reset my password?"},
    attempt_errors=[{"attempt": 1, "code": "upstream_unavailable"}],
    traceback=None,
    resolved_us=None,
    resolved_by=None,
    retry_position=None,
    retry_payload=None,
)
_DETAIL = DeadDetail(dead=_DIED, metadata={"channel": "web"}, usage=Usage(), cost_nano_usd=98_700, runs=[_RUN])
_RETRIED = {
    "id": _DIED.job_id,
    "object": "dead_job.retry",
    "tenant": "acme",
    "outcome": "queued",
    "run": 2,
    "position": 0,
    "job": f"/v1/jobs/{_DIED.job_id}",
}
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
_QUERY = query(
    ListQuery,
    {
        "tenant": TENANT,
        "agent": "One agent only.",
        "error_code": "One error code only.",
        "state": "How they ended.",
        "older_than_s": "Ended at least so long ago.",
        "newer_than_s": "Ended at most so long ago.",
        "disposition": "What became of them since.",
        **PAGE,
        "limit": "Jobs of a page.",
    },
)
_OF_ONE = (pieces.job_id("The dead job's id."), *query(OneQuery, {"tenant": TENANT}).values())


def components() -> Mapping[str, Schema]:
    detail, run = _DETAIL.resource(), _DETAIL.resource()["runs"][0]
    return {
        **of_model(RetryBody),
        **of_model(BulkBody),
        "DeadJob": of_resource(_DIED.resource(), DeadJob, id=pieces.UUID),
        "DeadJobDetail": of_resource(
            detail, DeadDetail, DeadJob, id=pieces.UUID, runs={"type": "array", "items": ref("DeadRun")}
        ),
        "DeadRun": of_resource(run, DeadRun),
        "Retry": _RETRY,
    }


_operation = operations("Dead jobs", Console.desk)

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/v1/dead-jobs"): _operation(
        "list_dead_jobs",
        "List dead jobs",
        "The newest end first. Expired and rejected messages are among them.",
        {
            200: page(
                "DeadJob",
                _DIED.resource(),
                links={
                    name: {"operationId": name, "parameters": {"job_id": "$response.body#/data/0/id"}}
                    for name in ("get_dead_job", "retry_dead_job", "discard_dead_job")
                },
            )
        },
        parameters=tuple(_QUERY.values()),
    ),
    ("POST", "/v1/dead-jobs/retry"): _operation(
        "retry_dead_jobs",
        "Retry what a filter matches",
        "A batch of open dead jobs, in the order they were accepted; go on with `cursor` until `next_cursor` is null. "
        "A job that cannot be retried is `refused` and stops nothing.",
        {202: page("Retry", _RETRIED, "What became of each.")},
        body=Body(
            schema=ref("BulkBody"),
            examples={
                "one error": {"filter": {"error_code": "upstream_unavailable", "newer_than_s": 3600}, "limit": 50}
            },
            required=False,
        ),
        raises=(QueueFull("The queue is full; try again later.", retry_after_s=5), Unavailable("")),
    ),
    ("GET", "/v1/dead-jobs/{job_id}"): _operation(
        "get_dead_job",
        "Look at a dead job",
        "With all its runs: errors of each attempt, what it was given, the traceback where there is one.",
        {200: one("The job.", "DeadJobDetail", _DETAIL.resource(), called="died")},
        parameters=_OF_ONE,
        raised_by=(DeadBooks.find,),
    ),
    ("DELETE", "/v1/dead-jobs/{job_id}"): _operation(
        "discard_dead_job",
        "Discard a dead job",
        "It counts as dealt with; its row stays. Repeating it changes nothing.",
        {200: Answer(description="The job.", schema=ref("DeadJobDetail"), headers=pieces.NO_STORE)},
        parameters=_OF_ONE,
        raised_by=(DeadBooks.find, DeadBooks.discard),
    ),
    ("POST", "/v1/dead-jobs/{job_id}/retry"): _operation(
        "retry_dead_job",
        "Retry a dead job",
        "It starts over as its next run, under its id: at the end of its conversation, or where its age puts it. "
        "`edit` changes what it is given. Repeating it changes nothing.",
        {
            202: one("Queued.", "Retry", _RETRIED, called="queued"),
            200: Answer(description="It was queued before.", schema=ref("Retry"), headers=pieces.NO_STORE),
        },
        parameters=_OF_ONE,
        body=Body(
            schema=ref("RetryBody"),
            examples={
                "as it was": {},
                "changed": {"position": "in_place", "edit": {"message": "How do I reset my password, please?"}},
            },
            required=False,
        ),
        raised_by=(DeadBooks.locked, Retrier.retry, Editor.apply),
    ),
}
