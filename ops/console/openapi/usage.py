"""`/v1/usage`, described."""

from collections.abc import Mapping
from datetime import UTC, datetime

from ingress.openapi.describe import Operation, Schema, nullable, record, ref
from ingress.openapi.schemas import DOLLARS, MOMENT, field_docs, fields_of
from ops.console.openapi.shapes import one, operations, query
from ops.console.state import Console
from ops.usage.report import Figures, Line, Question, Report, UsageFilter
from ops.usage.route import UsageOverHttp
from ops.usage.spans import Span

_FIGURES = Figures(
    jobs=120,
    calls=140,
    ok_calls=128,
    failed_calls=2,
    lost_calls=1,
    cached_calls=9,
    estimated_calls=2,
    input_tokens=61_540,
    output_tokens=14_222,
    cached_tokens=20_480,
    reasoning_tokens=1_210,
    cost_nano_usd=105_432_100,
    saved_nano_usd=7_214_000,
    ok_cost_nano_usd=105_101_000,
    failed_cost_nano_usd=220_000,
    lost_cost_nano_usd=111_100,
    estimated_cost_nano_usd=331_100,
)
_REPORT = Report(
    question=Question(
        span=Span(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        by=("day", "agent"),
        filter=UsageFilter(tenant="acme"),
    ),
    groups=1,
    totals=_FIGURES,
    lines=[Line({"day": "2026-11-21", "agent": "support"}, _FIGURES)],
)
_QUOTIENTS = {
    "cost_per_call_usd": "Rounded to a nano-USD.",
    "cost_per_job_usd": "Rounded to a nano-USD.",
    "tokens_per_call": "Rounded to a tenth.",
    "tokens_per_job": "Rounded to a tenth.",
    "cached_share": "Of the input tokens, between 0 and 1.",
}


def _figure(name: str) -> Schema:
    fields = fields_of(Figures)
    if name in _QUOTIENTS:
        return {**nullable({"type": "string", "pattern": r"^\d+\.\d+$"}), "description": _QUOTIENTS[name]}
    if name == "saved_usd":
        return {**DOLLARS, "description": fields["saved_nano_usd"]["description"]}
    if name.endswith("_usd"):
        return DOLLARS
    return fields.get(name, {"type": "integer"})


_FIGURE_SCHEMAS: Mapping[str, Schema] = {name: _figure(name) for name in _FIGURES.resource()}
_WORDS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def components() -> Mapping[str, Schema]:
    group: Schema = {
        "type": "object",
        "description": "A value for each thing in `by`; a unit of time by its beginning. Null: the calls without one.",
        "additionalProperties": nullable({"type": "string"}),
    }
    return {
        "UsageFigures": record(_FIGURE_SCHEMAS, description=Figures.__doc__),
        "UsageLine": record({"group": group, **_FIGURE_SCHEMAS}),
        "UsageReport": record(
            {
                "object": {"const": "usage_report"},
                "from": MOMENT,
                "to": {**MOMENT, "description": "The first moment after it."},
                "by": {"type": "array", "items": {"type": "string"}},
                "filter": _WORDS,
                "groups": {"type": "integer", "description": "With calls, shown or not."},
                "totals": {**ref("UsageFigures"), "description": "Of all groups, shown or not."},
                "data": {"type": "array", "items": ref("UsageLine")},
            }
        ),
    }


_QUERY = query(UsageOverHttp, {name.rstrip("_"): words for name, words in field_docs(UsageOverHttp).items()})
_operation = operations("Usage", Console.usage, Console.desk)

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/v1/usage"): _operation(
        "show_usage",
        "What was used and what it cost",
        "Model calls of a span of time, summed by what `by` names. A call belongs to the moment it was opened. Failed, "
        "lost and estimated calls are in the sums and shown apart. Money is exact; only averages are rounded. Groups "
        "come in order of time, then the dearest first.",
        {200: one("The report.", "UsageReport", _REPORT.resource(), called="days")},
        parameters=tuple(_QUERY.values()),
        raised_by=(UsageOverHttp.question,),
    ),
}
