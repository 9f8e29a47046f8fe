"""The operations on users, described; `operations.py` lists them with the others."""

from collections.abc import Mapping

from ingress.openapi import pieces
from ingress.openapi.describe import Answer, Operation, Parameter, Schema, record
from ingress.openapi.schemas import of_resource
from ops.console.openapi.shapes import AT_US, PAGE, located, one, operations, page, query
from ops.console.state import tenant_of
from ops.users.asks import UsersQuery
from ops.users.books import ErasingBooks, Erasure, User, UserBooks

_USER = User(id="u-17", tenant="acme", profile={"name": "Ada", "language": "en"}, created_us=AT_US)
_WHOLE = User(
    id="u-17",
    tenant="acme",
    profile={"name": "Ada", "language": "en"},
    created_us=AT_US,
    conversations=2,
    messages=31,
    last_us=AT_US,
)
_ERASURE = Erasure(
    id=pieces.EXAMPLE_ID,
    tenant="acme",
    kind="user",
    state="done",
    counts={"conversations": 2, "messages": 31, "jobs": 16, "llm_calls": 17},
    erased_before_us=AT_US,
    requested_us=AT_US,
    requested_by="key:3f9a0c55d1e2",
    done_us=AT_US,
)
_QUERY = query(UsersQuery, {"tenant": "Whose; an `admin` key has no other than its own.", **PAGE})


def _named(name: str, what: str, example: str) -> tuple[Parameter, Parameter]:
    schema: Schema = {"type": "string", "minLength": 1}
    return Parameter(name=name, where="path", description=what, schema=schema, example=example), _QUERY["tenant"]


_OF_USER = _named("user_id", "The user's id, as messages name it.", "u-17")


def components() -> Mapping[str, Schema]:
    profile: Schema = {"type": "object", "description": "What is known of the user."}
    counts: Schema = {
        "type": "object",
        "description": "How many rows went, by table; in the ledger, how many lost the user.",
        "additionalProperties": {"type": "integer"},
    }
    state: Schema = {"enum": ["begun", "fenced", "done"], "description": "`done`: nothing is left."}
    return {
        "User": of_resource(_USER.resource(), User, profile=profile),
        "UserDetail": of_resource(_WHOLE.resource(), User, profile=profile),
        "UserRow": record({"table": {"type": "string"}, "row": {"type": "object"}}),
        "Erasure": of_resource(_ERASURE.resource(), Erasure, id=pieces.UUID, counts=counts, state=state),
    }


_operation = operations("Users", tenant_of)


def _erased(what: str) -> Mapping[int, Answer]:
    done, begun = _ERASURE.resource(), {**_ERASURE.resource(), "state": "fenced", "done_at": None}
    where = located("Of the erasure.")
    return {
        200: one(what, "Erasure", done, called="done", headers=where),
        202: one("It goes on; look again at its `Location`.", "Erasure", begun, called="under way", headers=where),
    }


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/v1/users"): _operation(
        "list_users",
        "List users",
        "Those who said something, by id.",
        {200: page("User", _USER.resource())},
        parameters=tuple(_QUERY.values()),
    ),
    ("GET", "/v1/users/{user_id}"): _operation(
        "get_user",
        "Look at a user",
        "With how much there is of them.",
        {200: one("The user.", "UserDetail", _WHOLE.resource())},
        parameters=_OF_USER,
        raised_by=(UserBooks.find,),
    ),
    ("GET", "/v1/users/{user_id}/export"): _operation(
        "export_user",
        "Everything that is held of a user",
        "A line of JSON for each row, with the table it is from. What is on its way at this moment is not in it yet.",
        {
            200: Answer(
                description="The rows.",
                schema={"type": "string", "description": "Lines; each is a `UserRow`."},
                media_type="application/jsonl",
                headers=pieces.NO_STORE,
            )
        },
        parameters=_OF_USER,
        raised_by=(UserBooks.find,),
    ),
    ("DELETE", "/v1/users/{user_id}"): _operation(
        "erase_user",
        "Erase a user everywhere",
        "Their messages that wait or are being answered are stopped; nothing of them is written any more. The ledger "
        "keeps what it cost, without the user. Whoever comes back starts clean. Repeating it erases what came since.",
        _erased("Nothing is left."),
        parameters=_OF_USER,
        raised_by=(ErasingBooks.begin,),
    ),
    ("DELETE", "/v1/conversations/{conversation_id}"): _operation(
        "erase_conversation",
        "Erase a conversation everywhere",
        "For conversations without a user too. Else as for a user.",
        _erased("Nothing is left."),
        parameters=_named("conversation_id", "The conversation's id.", "0192f0c1-7a3c-7d02-8e55-91c0a7b3d114"),
        raised_by=(ErasingBooks.begin,),
    ),
    ("GET", "/v1/erasures/{erasure_id}"): _operation(
        "get_erasure",
        "How an erasure stands",
        "It does not say who was erased.",
        {200: one("The erasure.", "Erasure", _ERASURE.resource(), called="done")},
        parameters=(
            Parameter(
                name="erasure_id",
                where="path",
                description="The erasure's id.",
                schema=pieces.UUID,
                example=pieces.EXAMPLE_ID,
            ),
            _QUERY["tenant"],
        ),
        raised_by=(UserBooks.erasure,),
    ),
}
