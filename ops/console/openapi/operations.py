"""The console's operations, described: what an operator should know and the code cannot say.

As for the ingress, a test fails for a route that has no entry here and for an entry that has no route.
"""

import msgspec
from pydantic import BaseModel

from ingress.openapi import pieces
from ingress.openapi.describe import Answer, Api, Body, Operation, Parameter, listing, record, ref
from ingress.openapi.schemas import filled, of_model
from ingress.strangers import Attempt
from ops.console.asks import ListQuery, OneQuery
from ops.console.openapi import alerts, channels, deliveries, profiles, tenants, users
from ops.console.openapi.components import CURSOR, DETAIL, DIED, RETRIED, STATS, components
from ops.console.openapi.usage import SHOW_USAGE
from ops.console.state import Console
from ops.dead.books import DeadBooks
from ops.dead.edit import Editor
from ops.dead.retry import Retrier
from shared.errors import QueueFull, Unavailable


def _query(model: type[BaseModel]) -> tuple[Parameter, ...]:
    """The query string that a model reads. A parameter that is absent is null."""
    properties = of_model(model)[model.__name__]["properties"]
    return tuple(
        Parameter(name=name, where="query", description=_ABOUT_QUERY[name], schema=filled(schema))
        for name, schema in properties.items()
    )


_ABOUT_QUERY = {
    "tenant": "One tenant only. An `admin` key has no other than its own.",
    "agent": "One agent only.",
    "error_code": "One error code only.",
    "state": "How they ended.",
    "older_than_s": "Ended at least so long ago.",
    "newer_than_s": "Ended at most so long ago.",
    "disposition": "What became of them since.",
    "limit": "Jobs of a page.",
    "cursor": "A page's `next_cursor`, to go on after it.",
}
_OF_ONE = (pieces.job_id("The dead job's id."), *_query(OneQuery))

_LIST = Operation(
    id="list_dead_jobs",
    tag="Dead jobs",
    summary="List dead jobs",
    description="The newest end first. Expired and rejected messages are among them.",
    security=("bearer",),
    scope="admin",
    parameters=_query(ListQuery),
    answers={
        200: Answer(
            description="A page.",
            schema=listing(ref("DeadJob"), next_cursor=CURSOR),
            headers=pieces.NO_STORE,
            examples={"one": {"object": "list", "data": [DIED.resource()], "next_cursor": None}},
            links={
                name: {"operationId": name, "parameters": {"job_id": "$response.body#/data/0/id"}}
                for name in ("get_dead_job", "retry_dead_job", "discard_dead_job")
            },
        )
    },
    raised_by=(Console.desk,),
)
_GET = Operation(
    id="get_dead_job",
    tag="Dead jobs",
    summary="Look at a dead job",
    description="With all its runs: errors of each attempt, what it was given, the traceback where there is one.",
    security=("bearer",),
    scope="admin",
    parameters=_OF_ONE,
    answers={
        200: Answer(
            description="The job.",
            schema=ref("DeadJobDetail"),
            headers=pieces.NO_STORE,
            examples={"died": DETAIL.resource()},
        )
    },
    raised_by=(Console.desk, DeadBooks.find),
)
_DISCARD = Operation(
    id="discard_dead_job",
    tag="Dead jobs",
    summary="Discard a dead job",
    description="It counts as dealt with; its row stays. Repeating it changes nothing.",
    security=("bearer",),
    scope="admin",
    parameters=_OF_ONE,
    answers={200: Answer(description="The job.", schema=ref("DeadJobDetail"), headers=pieces.NO_STORE)},
    raised_by=(Console.desk, DeadBooks.find, DeadBooks.discard),
)
_RETRY_ONE = Operation(
    id="retry_dead_job",
    tag="Dead jobs",
    summary="Retry a dead job",
    description=(
        "It starts over as its next run, under its id: at the end of its conversation, or where its age puts it. "
        "`edit` changes what it is given. Repeating it changes nothing."
    ),
    security=("bearer",),
    scope="admin",
    parameters=_OF_ONE,
    body=Body(
        schema=ref("RetryBody"),
        examples={
            "as it was": {},
            "changed": {"position": "in_place", "edit": {"message": "How do I reset my password, please?"}},
        },
        required=False,
    ),
    answers={
        202: Answer(description="Queued.", schema=ref("Retry"), headers=pieces.NO_STORE, examples={"queued": RETRIED}),
        200: Answer(description="It was queued before.", schema=ref("Retry"), headers=pieces.NO_STORE),
    },
    raised_by=(Console.desk, DeadBooks.locked, Retrier.retry, Editor.apply),
)
_RETRY_MANY = Operation(
    id="retry_dead_jobs",
    tag="Dead jobs",
    summary="Retry what a filter matches",
    description=(
        "A batch of open dead jobs, in the order they were accepted; go on with `cursor` until `next_cursor` is null. "
        "A job that cannot be retried is `refused` and stops nothing."
    ),
    security=("bearer",),
    scope="admin",
    body=Body(
        schema=ref("BulkBody"),
        examples={"one error": {"filter": {"error_code": "upstream_unavailable", "newer_than_s": 3600}, "limit": 50}},
        required=False,
    ),
    answers={
        202: Answer(
            description="What became of each.",
            schema=listing(ref("Retry"), next_cursor=CURSOR),
            headers=pieces.NO_STORE,
            examples={"one": {"object": "list", "data": [RETRIED], "next_cursor": None}},
        )
    },
    raised_by=(Console.desk,),
    raises=(QueueFull("The queue is full; try again later.", retry_after_s=5), Unavailable("")),
)
_QUEUES = Operation(
    id="list_queues",
    tag="Queues",
    summary="The load of every queue",
    description="One instant of each queue, with the number of workers that its load asks for.",
    security=("bearer",),
    scope="operator",
    answers={
        200: Answer(
            description="All queues.",
            schema=listing(ref("QueueStats")),
            headers=pieces.NO_STORE,
            examples={"one": {"object": "list", "data": [msgspec.to_builtins(STATS)]}},
        )
    },
    raised_by=(Console.authenticate_operator,),
)
_TARGETS = Operation(
    id="metrics_targets",
    tag="Queues",
    summary="Where the workers' numbers are",
    description=(
        "Prometheus's HTTP service discovery: the live workers that serve metrics. The scraper's token "
        "(`SWITCHBOARD_METRICS_TOKEN`) opens it as well."
    ),
    security=("bearer",),
    scope="operator",
    answers={
        200: Answer(
            description="All workers.",
            schema={
                "type": "array",
                "items": record(
                    {
                        "targets": {"type": "array", "items": {"type": "string"}},
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    }
                ),
            },
            headers=pieces.NO_STORE,
            examples={"one": [{"targets": ["10.0.0.7:9100"], "labels": {"process": "worker", "queue": "default"}}]},
        )
    },
    raised_by=(Console.authenticate_operator,),
)

CONSOLE = Api(
    title="Switchboard console",
    summary="For the people who run it.",
    description=(
        "Keys with the scope `operator` reach every tenant, those with `admin` their own. Every error is a problem "
        "(RFC 9457); its `type` is made for programs."
    ),
    tags={
        "Dead jobs": "What could not be answered: look, mend, retry, discard.",
        "Tenants": "Who is served: settings, keys, and who changed them.",
        "Users": "Who talks to a tenant's agents: profiles and facts, export, erasing.",
        "Channels": "The messengers that tenants' users write from.",
        "Usage": "What was used and what it cost.",
        "Deliveries": "Where events go, what became of each, and sending it again.",
        "Alerts": "Who is told of what, and what was crossed.",
        "Queues": "How much there is to do, for autoscalers, scrapers and people.",
        "Health": "For platforms; no key.",
        "About": "For whoever looks around; no key.",
    },
    operations={
        ("GET", "/"): pieces.about(),
        ("GET", "/health/live"): pieces.live(),
        ("GET", "/health/ready"): pieces.health(
            "ready", "Can it do its own work?", "Redis and Postgres answer.", {"redis": "ok", "postgres": "ok"}
        ),
        ("GET", "/metrics"): pieces.metrics("Queues", Console.authenticate_operator),
        ("GET", "/v1/metrics/targets"): _TARGETS,
        ("GET", "/v1/queues"): _QUEUES,
        ("GET", "/v1/usage"): SHOW_USAGE,
        ("GET", "/v1/dead-jobs"): _LIST,
        ("POST", "/v1/dead-jobs/retry"): _RETRY_MANY,
        ("GET", "/v1/dead-jobs/{job_id}"): _GET,
        ("DELETE", "/v1/dead-jobs/{job_id}"): _DISCARD,
        ("POST", "/v1/dead-jobs/{job_id}/retry"): _RETRY_ONE,
        **tenants.OPERATIONS,
        **channels.OPERATIONS,
        **deliveries.OPERATIONS,
        **alerts.OPERATIONS,
        **users.OPERATIONS,
        **profiles.OPERATIONS,
        **pieces.documents(),
    },
    components=components,
    secured_by=(Console.authenticate, Attempt.count),
)
