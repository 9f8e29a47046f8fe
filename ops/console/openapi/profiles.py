"""The operations on users' profiles and facts, described; `operations.py` lists them with the others."""

from collections.abc import Mapping

from ingress.openapi import pieces
from ingress.openapi.describe import Body, Operation, Parameter, Schema, nullable, record, ref
from ingress.openapi.schemas import of_model, of_resource
from ops.console.openapi.shapes import AT_US, all_of, one, operations, query
from ops.console.state import tenant_of
from ops.profiles.asks import TOPIC, FactBody, FactsQuery, ProfileBody
from ops.profiles.books import ProfileBooks
from ops.profiles.records import Entry, Profile, UserFact

_ENTRY = Entry(value="Ada", by="user", at_us=AT_US, sources=[pieces.EXAMPLE_ID])
_PROFILE = Profile(tenant="acme", user_id="u-17", entries={"name": _ENTRY})
_FACT = UserFact(
    id=pieces.EXAMPLE_ID,
    tenant="acme",
    user_id="u-17",
    topic="home_city",
    text="Lives in Lisbon.",
    conversation_id="c-17",
    sources=[pieces.EXAMPLE_ID],
    told_by="user",
    valid_from_us=AT_US,
    valid_to_us=None,
    superseded_by=None,
)
_ERASED = {"object": "facts.erased", "erased": 2}
_QUERY = query(FactsQuery, {"tenant": "Whose user; an operator must say.", "past": "Facts that held once, too."})
_USER = Parameter(
    name="user_id",
    where="path",
    description="As callers name their user.",
    schema={"type": "string", "minLength": 1, "maxLength": 128},
    example="u-17",
)
_OF_USER = (_USER, _QUERY["tenant"])
_TOPIC = Parameter(
    name="topic",
    where="path",
    description="What the fact is about. One fact of a topic holds at a time.",
    schema={"type": "string", "pattern": TOPIC},
    example="home_city",
)


def components() -> Mapping[str, Schema]:
    texts: Schema = {"type": "array", "items": pieces.UUID}
    value: Schema = {"anyOf": [{"type": "string"}, {"type": "boolean"}]}
    return {
        **of_model(ProfileBody),
        **of_model(FactBody),
        "ProfileEntry": of_resource(_ENTRY.resource(), Entry, value=value, sources=texts),
        "Profile": of_resource(
            _PROFILE.resource(),
            Profile,
            entries={
                "type": "object",
                "description": "Those of `name`, `language`, `prefers_concise` that are known.",
                "additionalProperties": ref("ProfileEntry"),
            },
        ),
        "Fact": of_resource(
            _FACT.resource(), UserFact, id=pieces.UUID, sources=texts, superseded_by=nullable(pieces.UUID)
        ),
        "FactsErased": record({"object": {"const": "facts.erased"}, "erased": {"type": "integer"}}),
    }


_operation = operations("Users", tenant_of)
_PROFILE_ANSWER = one("The profile.", "Profile", _PROFILE.resource())

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/v1/users/{user_id}/profile"): _operation(
        "get_profile",
        "Look at a profile",
        "What agents with memory are told of a user, with where it was said.",
        {200: _PROFILE_ANSWER},
        parameters=_OF_USER,
        raised_by=(ProfileBooks.profile,),
    ),
    ("PATCH", "/v1/users/{user_id}/profile"): _operation(
        "change_profile",
        "Change a profile",
        "What is written here is never replaced by what is found in conversations; null takes an entry out.",
        {200: _PROFILE_ANSWER},
        parameters=_OF_USER,
        body=Body(
            required=False,  # nothing changes nothing
            schema=ref("ProfileBody"),
            examples={"one": {"name": "Ada", "language": "pt", "prefers_concise": None}},
        ),
        raised_by=(ProfileBooks.change_profile,),
    ),
    ("DELETE", "/v1/users/{user_id}/profile"): _operation(
        "erase_profile",
        "Erase a profile",
        "What the user tells from now on is found again.",
        {200: one("It is empty.", "Profile", Profile(tenant="acme", user_id="u-17", entries={}).resource())},
        parameters=_OF_USER,
        raised_by=(ProfileBooks.erase_profile, ProfileBooks.profile),
    ),
    ("GET", "/v1/users/{user_id}/facts"): _operation(
        "list_facts",
        "List facts",
        "What a user told, the newest first. Empty for a user nobody has heard of.",
        {200: all_of("Fact", _FACT.resource())},
        parameters=(*_OF_USER, _QUERY["past"]),
        raised_by=(ProfileBooks.facts,),
    ),
    ("DELETE", "/v1/users/{user_id}/facts"): _operation(
        "erase_facts",
        "Erase all facts",
        "Those of the past as well. The messages they were found in stay.",
        {200: one("How many there were.", "FactsErased", _ERASED)},
        parameters=_OF_USER,
        raised_by=(ProfileBooks.erase_facts,),
    ),
    ("PUT", "/v1/users/{user_id}/facts/{topic}"): _operation(
        "put_fact",
        "Write a fact",
        "It holds from now on; what was known of its topic is closed, and kept as history.",
        {200: one("The fact.", "Fact", _FACT.resource())},
        parameters=(_USER, _TOPIC, _QUERY["tenant"]),
        body=Body(schema=ref("FactBody"), examples={"one": {"text": "Lives in Porto."}}),
        raised_by=(ProfileBooks.put_fact,),
    ),
    ("DELETE", "/v1/users/{user_id}/facts/{topic}"): _operation(
        "erase_fact",
        "Erase a topic",
        "Its past included.",
        {200: one("How many facts there were.", "FactsErased", _ERASED)},
        parameters=(_USER, _TOPIC, _QUERY["tenant"]),
        raised_by=(ProfileBooks.erase_facts,),
    ),
}
