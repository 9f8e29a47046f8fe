"""What goes on beside the conversations, in numbers: deliveries, memory, erasures, and what all may spend together.

Asked by the console's `/metrics`, of all tenants. `switchboard doctor` looks at the same rows.
"""

from prometheus_client import CollectorRegistry, Gauge

from shared import budgets
from shared.config import Settings
from shared.db import Pool, Row
from shared.redis import Commands
from shared.tenants import Budgets
from sql import queries


async def declare_deliveries(books: Pool, registry: CollectorRegistry) -> None:
    text = "Deliveries that are not over."
    waiting = Gauge("switchboard_deliveries_open", text, ["kind", "state"], registry=registry)
    for row in await books.fetch(queries["delivery_load"]):
        waiting.labels(row["kind"], row["state"]).set(row["deliveries"])
    text = "For how long delivery processes have left alone what is due."
    _gauge("switchboard_delivery_lag_seconds", text, registry, await books.fetchval(queries["delivery_lag"]))
    ways = await _row(books, "closed_ways")
    _gauge("switchboard_channels_paused", "Channels nothing goes out through.", registry, ways["channels"])
    text = "Endpoints that were disabled because nothing got through."
    _gauge("switchboard_endpoints_disabled", text, registry, ways["endpoints"])


async def declare_outbox(books: Pool, registry: CollectorRegistry) -> None:
    load = await _row(books, "memory_outbox_load")
    _gauge("switchboard_memory_outbox_turns", "Turns that memory has not taken in.", registry, load["turns"])
    text = "For how long the oldest of them has waited."
    _gauge("switchboard_memory_outbox_oldest_seconds", text, registry, load["oldest_s"])


async def declare_erasures(books: Pool, registry: CollectorRegistry) -> None:
    load = await _row(books, "erasure_load")
    _gauge("switchboard_erasures_open", "Erasures that are not done.", registry, load["erasures"])
    text = "For how long the oldest of them has been wanted."
    _gauge("switchboard_erasure_oldest_seconds", text, registry, load["oldest_s"])


async def declare_budgets(commands: Commands, settings: Settings, registry: CollectorRegistry) -> None:
    """Of the deployment's own budgets, where they are set; held amounts count, as they do when money is reserved."""
    text = "What all tenants have spent and hold, as a share of the deployment's budget."
    share = Gauge("switchboard_budget_spent_ratio", text, ["scope"], registry=registry)
    seconds, _ = await commands.run("TIME")
    all_scopes = budgets.scopes_of(
        Budgets(),
        budgets.DeploymentBudgets.of(settings),
        tenant="",
        user_id=None,
        conversation_id="",
        at_ms=int(seconds) * 1000,
    )
    for scope in all_scopes:
        if scope.kind in ("global-day", "global-month") and scope.budget_nano_usd is not None:
            spent = sum(int(amount or 0) for amount in await commands.run("HMGET", scope.key, "usd", "usd_held"))
            share.labels(scope.kind).set(spent / scope.budget_nano_usd if scope.budget_nano_usd else 1)


def _gauge(name: str, text: str, registry: CollectorRegistry, value: float) -> None:
    Gauge(name, text, registry=registry).set(value)


async def _row(books: Pool, query: str) -> Row:
    row = await books.fetchrow(queries[query])
    if row is None:
        raise RuntimeError(f"{query} returns one row")
    return row
