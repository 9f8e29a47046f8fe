"""The operations on queues and on numbers, described; `operations.py` lists them with the others."""

from collections.abc import Mapping

import msgspec

from ingress.openapi import pieces
from ingress.openapi.describe import Answer, Operation, Schema, record
from ingress.openapi.schemas import of_struct
from ops.console.openapi.shapes import all_of, operations
from ops.console.state import Console
from ops.queues import QueueStats

_STATS = QueueStats(
    queue="default",
    depth=12,
    due=3,
    delayed=1,
    in_flight=250,
    oldest_age_s=0.42,
    live_workers=2,
    slots=2_000,
    slots_per_worker=1_000,
    utilisation=0.125,
    desired_workers=1,
)
_TARGETS: Schema = {
    "type": "array",
    "items": record(
        {
            "targets": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ),
}


def components() -> Mapping[str, Schema]:
    return {"QueueStats": of_struct(QueueStats)}


_operation = operations("Queues", Console.authenticate_operator)

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/metrics"): pieces.metrics("Queues", Console.authenticate_operator),
    ("GET", "/v1/metrics/targets"): _operation(
        "metrics_targets",
        "Where the workers' numbers are",
        "Prometheus's HTTP service discovery: the live workers that serve metrics. The scraper's token "
        "(`SWITCHBOARD_METRICS_TOKEN`) opens it as well.",
        {
            200: Answer(
                description="All workers.",
                schema=_TARGETS,
                headers=pieces.NO_STORE,
                examples={"one": [{"targets": ["10.0.0.7:9100"], "labels": {"process": "worker", "queue": "default"}}]},
            )
        },
        scope="operator",
    ),
    ("GET", "/v1/queues"): _operation(
        "list_queues",
        "The load of every queue",
        "One instant of each queue, with the number of workers that its load asks for.",
        {200: all_of("QueueStats", msgspec.to_builtins(_STATS), "All queues.")},
        scope="operator",
    ),
}
