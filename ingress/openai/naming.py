"""Names on OpenAI's wire and ours: `resp_<job id>`, `conv_<conversation id>`, `msg_<job id>`.

A conversation whose id is a UUID, as those that we make, is shown with the prefix; any other name is a caller's own and
stays as it is.
"""

from shared.errors import NotFound
from shared.ids import is_uuid

RESPONSE, CONVERSATION, ITEM = "resp_", "conv_", "msg_"


def job_id_of(response_id: str) -> str | None:
    """None for a name that no response has."""
    job_id = response_id.removeprefix(RESPONSE)
    return job_id if response_id.startswith(RESPONSE) and is_uuid(job_id) else None


def conversation_id_of(shown: str) -> str:
    own = shown.removeprefix(CONVERSATION)
    return own if is_uuid(own) else shown


def shown_conversation(conversation_id: str) -> str:
    return f"{CONVERSATION}{conversation_id}" if is_uuid(conversation_id) else conversation_id


def item_id(job_id: str, place: int | None = None) -> str:
    """Of a job's answer, or of what was asked at a place, from 0."""
    return f"{ITEM}{job_id}" if place is None else f"{ITEM}{job_id}_{place}"


def unknown_response(response_id: str) -> NotFound:
    """One answer for a response that never was, one of another tenant, and one that its caller has deleted."""
    return NotFound(f"Response with id '{response_id}' not found.", code="response_not_found", param="id")
