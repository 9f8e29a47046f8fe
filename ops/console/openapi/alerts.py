"""The operations on alerts, described; `operations.py` lists them with the others."""

from collections.abc import Mapping
from decimal import Decimal

from ingress.openapi import pieces
from ingress.openapi.describe import Body, Operation, Parameter, Schema, nullable, record, ref
from ingress.openapi.schemas import of_model, of_resource, of_struct
from ops.alerts.asks import NAME, AlertBody, EventsQuery
from ops.alerts.books import AlertBooks
from ops.console.openapi.shapes import AT_US, PAGE, all_of, one, operations, page, query
from ops.console.state import Console
from ops.deliveries.gate import Gate
from workers.alerts.records import Alert, AlertEvent, Rule, Target

_ALERT = Alert(
    tenant="acme",
    name="budgets",
    rule=Rule(
        metric="budget",
        thresholds=(Decimal("0.5"), Decimal("0.8"), Decimal(1)),
        targets=(Target("email", "ada@example.com"),),
    ),
    updated_us=AT_US,
    updated_by="key:3f9a0c55d1e2",
)
_EVENT = AlertEvent(
    id=pieces.EXAMPLE_ID,
    tenant="acme",
    name="budgets",
    metric="budget",
    scope="user-month:u-17",
    period="2026-11",
    threshold=Decimal("0.8"),
    limit=Decimal(10),
    value=Decimal("8.12"),
    crossed_us=AT_US,
    detail={"unit": "usd"},
)
_TEST = {"object": "alert.test", "alert": "budgets", "event": pieces.EXAMPLE_ID}
_NUMBER: Schema = {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}
_WHOSE: Schema = {**nullable({"type": "string"}), "description": "Null: the deployment as a whole."}
_QUERY = query(
    EventsQuery,
    {"tenant": "One tenant only; for an operator, without it, the deployment as a whole.", **PAGE},
)
_NAMED = (
    Parameter(
        name="name",
        where="path",
        description="The alert's name, which is yours to choose.",
        schema={"type": "string", "pattern": NAME},
        example="budgets",
    ),
    _QUERY["tenant"],
)


def components() -> Mapping[str, Schema]:
    return {
        **of_model(AlertBody),
        "Alert": of_resource(
            _ALERT.resource(),
            Alert,
            Rule,
            tenant=_WHOSE,
            thresholds={"type": "array", "items": _NUMBER},
            scopes={"type": "array", "items": {"type": "string"}},
            least=nullable({"type": "integer"}),
            targets={"type": "array", "items": ref("Target")},
        ),
        "Target": of_struct(Target),
        "AlertEvent": of_resource(
            _EVENT.resource(),
            AlertEvent,
            id=pieces.UUID,
            tenant=_WHOSE,
            alert={"type": "string", "description": "The rule's name."},
            period={**nullable({"type": "string"}), "description": "UTC; null: it has none."},
            threshold=_NUMBER,
            limit={**nullable(_NUMBER), "description": "What the threshold is a share of, in dollars or tokens."},
            value=_NUMBER,
        ),
        "AlertTest": record({"object": {"const": "alert.test"}, "alert": {"type": "string"}, "event": pieces.UUID}),
    }


_operation = operations("Alerts", Console.desk)
_ALERT_ANSWER = one("The alert.", "Alert", _ALERT.resource())

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/v1/alerts"): _operation(
        "list_alerts",
        "List alerts",
        "By name. An operator, without a tenant, finds everybody's.",
        {200: all_of("Alert", _ALERT.resource())},
        parameters=(_QUERY["tenant"],),
    ),
    ("GET", "/v1/alerts/{name}"): _operation(
        "get_alert",
        "Look at an alert",
        "A rule: what is judged, from where on it is told, and whom.",
        {200: _ALERT_ANSWER},
        parameters=_NAMED,
        raised_by=(AlertBooks.find,),
    ),
    ("PUT", "/v1/alerts/{name}"): _operation(
        "put_alert",
        "Make or replace an alert",
        "Judged every minute by the ledger and the jobs. What is crossed is told once in its period, and tried again "
        "until it arrives. Tool failures, resolution, escalation, satisfaction and safety cannot be judged yet.",
        {200: _ALERT_ANSWER, 201: one("Made.", "Alert", _ALERT.resource())},
        parameters=_NAMED,
        body=Body(
            schema=ref("AlertBody"),
            examples={
                "budgets": {"metric": "budget", "targets": [{"kind": "email", "to": "ada@example.com"}]},
                "errors": {
                    "metric": "error_rate",
                    "thresholds": [0.02],
                    "targets": [{"kind": "slack", "to": "https://hooks.slack.com/services/T0/B0/x"}],
                },
            },
        ),
        raised_by=(AlertBooks.put, AlertBooks._check, Gate.check),
    ),
    ("DELETE", "/v1/alerts/{name}"): _operation(
        "remove_alert",
        "Remove an alert",
        "What it has told stays in the history.",
        {200: _ALERT_ANSWER},
        parameters=_NAMED,
        raised_by=(AlertBooks.remove, AlertBooks.find),
    ),
    ("POST", "/v1/alerts/{name}/test"): _operation(
        "test_alert",
        "Send a test to an alert's targets",
        "What became of it is in `/v1/deliveries`.",
        {202: one("Queued.", "AlertTest", _TEST)},
        parameters=_NAMED,
        raised_by=(AlertBooks.test,),
    ),
    ("GET", "/v1/alert-events"): _operation(
        "list_alert_events",
        "What was crossed",
        "The newest first; endpoints that were disabled, and tests, are among them.",
        {200: page("AlertEvent", _EVENT.resource())},
        parameters=tuple(_QUERY.values()),
    ),
}
