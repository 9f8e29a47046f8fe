"""An alert in words for people: one line that says it all, and the lines beneath it."""

from decimal import Decimal

from workers.alerts.records import DEPLOYMENT, AlertEvent

_UNITS = {"tokens": "{:,.0f} tokens", "usd": "${:,.2f}"}
_SCOPES = {
    "conversation": "conversation {}",
    "user-month": "user {}",
    "tenant-day": "the tenant's day",
    "tenant-month": "the tenant's month",
    "global-day": "the deployment's day",
    "global-month": "the deployment's month",
}


def headline(event: AlertEvent) -> str:
    who = "the deployment" if event.tenant == DEPLOYMENT else event.tenant
    return f"{who}: {_what(event)}"


def lines(event: AlertEvent) -> list[str]:
    said = [f"alert {event.name}", f"scope {event.scope}"]
    if event.period:
        said.append(f"period {event.period} (UTC)")
    said += [f"{name} {value}" for name, value in event.detail.items() if isinstance(value, str | int)]
    return said


def _what(event: AlertEvent) -> str:  # noqa: PLR0911 - one sentence per metric
    value, threshold = event.value, event.threshold
    match event.metric:
        case "budget":
            return _budget(event)
        case "daily_cost_usd" | "monthly_cost_usd":
            unit = "day" if event.metric == "daily_cost_usd" else "month"
            return f"{_usd(value)} spent this {unit}, more than {_usd(threshold)}"
        case "conversation_cost_usd":
            return f"a conversation costs {_usd(value)} on average today, more than {_usd(threshold)}"
        case "error_rate":
            return f"{_percent(value)} of the jobs of the last hour failed, more than {_percent(threshold)}"
        case "p50_s" | "p99_s":
            share = "half" if event.metric == "p50_s" else "one in a hundred"
            return f"{share} of the replies of the last hour took {value:.1f} s or more, the limit is {threshold:f} s"
        case "dau_drop":
            return f"{_percent(value)} fewer users than a week before"
        case "endpoint_disabled":
            why = "says it is gone" if event.detail.get("why") == "gone" else "has failed for days"
            return f"the endpoint {event.detail.get('url')} {why} and was disabled"
        case "test":
            return "this is a test: alerts arrive here"
        case other:
            return f"{other} is {value:f}, the threshold {threshold:f}"


def _budget(event: AlertEvent) -> str:
    kind, _, who = event.scope.partition(":")
    unit = _UNITS[str(event.detail.get("unit", "usd"))]
    scope = _SCOPES.get(kind, kind).format(who)
    used = f"{unit.format(event.value)} of {unit.format(event.limit)}"
    return f"{_percent(event.threshold)} of the budget of {scope} is used: {used}"


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}"


def _percent(share: Decimal) -> str:
    text = f"{share * 100:.1f}"
    return f"{text.removesuffix('.0')} %"
