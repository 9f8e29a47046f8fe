"""What schemathesis loads beside its own checks (`hooks` in the configuration that `fuzzing.py` writes).

`requests_by_the_document_are_taken` replaces `positive_data_acceptance`, which knows statuses only: a request that
the document allows may be refused for what no schema can say, and for nothing else.
"""

import json
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure

BY_STATE = frozenset({"/problems/idempotency_mismatch", "/problems/conversation_owner"})
"""422 for what other requests have done before; 401, 404 and 409 are such by themselves."""
BY_PROSE = frozenset(
    {"callback_url", "cursor", "metadata", "by", "period", "from", "to", "fill", "expires_at", "scopes", "settings"}
    | {"url", "targets", "thresholds", "tenant", "event_types", "credentials", ""}
)
"""Fields with a rule that only their description states: a URL's inner order and where its name leads, a cursor's
origin, a size in bytes, which of a report's parameters go together, all of a tenant's settings, whose models must have
a price, which thresholds are shares, whose tenant an operator means, what a kind of channel needs;
and a rule as a whole, for what its metric has."""

OPENAI_BY_STATE = frozenset({"idempotency_mismatch", "conversation_owner"})
OPENAI_BY_PROSE = frozenset({"input", "messages", "previous_response_id", "after"})
"""The last message is the user's and says something; what excludes what; an item of this very list."""


@schemathesis.check
def requests_by_the_document_are_taken(_ctx: Any, response: Any, case: Any) -> None:
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or response.status_code in {401, 403, 404, 409}:
        return
    if response.status_code < 400 or _by_state_or_prose(json.loads(response.content)):
        return
    raise Failure(
        operation=case.operation.label,
        title="A request by the document was refused",
        message=f"{response.status_code}: {response.content.decode()[:500]}",
    )


def _by_state_or_prose(problem: dict[str, Any]) -> bool:
    if "error" in problem:
        error = problem["error"]
        return error["code"] in OPENAI_BY_STATE or (error["param"] or "").partition("[")[0] in OPENAI_BY_PROSE
    fields = {fault["field"].partition("/")[0] for fault in problem.get("errors", [])}
    return problem["type"] in BY_STATE or (bool(fields) and fields <= BY_PROSE)
