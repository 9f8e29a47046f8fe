"""A job as OpenAI's API names it: the ids, the status, and the event that its webhooks send.

The ingress shows jobs so, and the delivery worker tells of them so where an endpoint asks for OpenAI's format. Wire
facts are those of the `openai` package (types/responses, types/webhooks).
"""

from typing import Any, Literal, assert_never

from shared.jobs import JobRecord, JobState

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
Reason = Literal["max_output_tokens", "content_filter"]

_REASONS: dict[str, Reason] = {"empty_reply": "max_output_tokens", "content_filter": "content_filter"}
"""Errors of ours that OpenAI's API shows as an answer that is not complete."""


def response_id(job_id: str) -> str:
    return f"resp_{job_id}"


def incomplete_reason(record: JobRecord) -> Reason | None:
    """Why there is less of an answer than there should be; None when that is not what happened."""
    if record.error is not None:
        return _REASONS.get(record.error.code)
    return "max_output_tokens" if record.incomplete else None


def status_of(record: JobRecord) -> Status:
    """A merged job is over when the one that answers for it is, and shows what became of that one."""
    match record.state:
        case JobState.QUEUED:
            return "queued"
        case JobState.RUNNING | JobState.RETRYING:
            return "in_progress"
        case JobState.CANCELLED:
            return "cancelled"
        case JobState.MERGED if not record.over:
            return "queued"
        case JobState.SUCCEEDED | JobState.DEAD | JobState.EXPIRED | JobState.REJECTED | JobState.MERGED:
            return _end_of(record)
        case _:
            assert_never(record.state)


def _end_of(record: JobRecord) -> Status:
    if incomplete_reason(record) is not None:
        return "incomplete"
    if record.error is None:
        return "completed"
    return "cancelled" if record.error.code == "cancelled" else "failed"


def openai_event(record: JobRecord, *, event_id: str) -> dict[str, Any]:
    """The body of a webhook `response.completed|incomplete|failed|cancelled` about a job that is over.

    `event_id` is the `webhook-id` that is sent with it, the same at every attempt. The body is thin, as OpenAI's: the
    receiver retrieves the response. Raises ValueError for a job that is not over.
    """
    if not record.over or record.finished_us is None:
        raise ValueError("there is no event of a job that is not over")
    return {
        "id": event_id,
        "object": "event",
        "created_at": record.finished_us // 1_000_000,
        "type": f"response.{status_of(record)}",
        "data": {"id": response_id(record.id)},
    }
