"""The console's API: its operations and their schemas, subject by subject, and what only a person can say of the whole.

As for the ingress, a test fails for a route that has no entry here and for an entry that has no route.
"""

from collections.abc import Mapping

from ingress.openapi import pieces
from ingress.openapi.describe import Api, Schema
from ingress.openapi.schemas import of_struct
from ingress.strangers import Attempt
from ops.console.openapi import alerts, channels, dead, deliveries, profiles, queues, tenants, usage, users
from ops.console.state import Console
from shared.config import Settings
from shared.jobs import JobError, Usage


def _components(_settings: Settings) -> Mapping[str, Schema]:
    return {
        **dead.components(),
        "JobError": of_struct(JobError),
        "Usage": of_struct(Usage),
        **queues.components(),
        **usage.components(),
        **tenants.components(),
        **channels.components(),
        **deliveries.components(),
        **alerts.components(),
        **profiles.components(),
        **users.components(),
        "Health": pieces.HEALTH,
        "About": pieces.ABOUT,
    }


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
        "Users": "Who talks to a tenant's agents, and what is known of them: look, put right, export, erase.",
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
        **queues.OPERATIONS,
        **usage.OPERATIONS,
        **dead.OPERATIONS,
        **tenants.OPERATIONS,
        **channels.OPERATIONS,
        **deliveries.OPERATIONS,
        **alerts.OPERATIONS,
        **profiles.OPERATIONS,
        **users.OPERATIONS,
        **pieces.documents(),
    },
    components=_components,
    secured_by=(Console.authenticate, Attempt.count),
)
