"""What a request that waits for an answer is told when there is none: HTTP's way to say how its job ended.

OpenAI answers such requests with an error too, so that a program that only reads the text of an answer does not take
none for one. None of them is worth another try by itself, as it would find the same job; a wait that was too long is.
"""

from shared.errors import Unanswered
from shared.jobs import JobError, JobRecord
from shared.responses import response_id

_STATUSES = {
    "upstream_rate_limited": 429,
    "budget_exhausted": 402,
    "refusal": 400,
    "expired": 503,
    "cancelled": 409,
    "tenant_disabled": 403,
    "conversation_owner": 422,
}
"""By our code of the error; all others are 502: something behind us failed."""
FAILURES = (*_STATUSES, "upstream_unavailable")
"""Codes with every status there is."""


def failure_of(record: JobRecord) -> Unanswered:
    """Of a job that is over without an answer."""
    error = record.error or JobError("no_answer", "the job ended without an answer")
    name = response_id(record.id)
    return Unanswered(
        f"{error.message} ({name})",
        code=error.code,
        status=_STATUSES.get(error.code, 502),
        again=False,
        headers={"location": f"/v1/responses/{name}"},
    )


def still_running(record: JobRecord, waited_s: int) -> Unanswered:
    """The same request again waits on; an SDK sends it by itself."""
    name = response_id(record.id)
    return Unanswered(
        f"There is no answer after {waited_s} s; it will be that of {name}.",
        code="timeout",
        status=504,
        again=True,
        headers={"location": f"/v1/responses/{name}", "retry-after": "1"},
    )
