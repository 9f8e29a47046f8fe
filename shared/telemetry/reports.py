"""Errors to Sentry, with the ids of the request and job they happened in and without anybody's words.

What is logged as an error is reported, ours and libraries' alike. Sentry's automatic integrations stay off: they record
prompts, bodies and queries. Without `SENTRY_DSN` the SDK is not even imported (0.2 s).
"""

from types import ModuleType
from typing import Any

from structlog.typing import EventDict

from shared.config import Settings
from shared.telemetry import context

IDS = ("request_id", "trace_id", "job_id", "conversation_id", "tenant", "agent", "queue", "worker", "route")
"""Fields of a line that become tags of a report."""
_ERRORS = frozenset({"error", "critical", "exception"})
_WITHHELD = "(withheld: it may quote a user)"

sdk: ModuleType | None = None
"""`sentry_sdk` once it is configured. `tracing` uses it too."""
sample = 0.0
"""Share of traces that are recorded."""


def configure(settings: Settings) -> None:
    global sdk, sample
    sdk, sample = None, 0.0
    if settings.sentry_dsn is None:
        return
    import sentry_sdk  # noqa: PLC0415 - 0.2 s that nobody without Sentry should wait for
    from sentry_sdk.integrations.atexit import AtexitIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.dedupe import DedupeIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.logging import LoggingIntegration  # noqa: PLC0415

    sentry_sdk.init(
        settings.sentry_dsn.get_secret_value(),
        environment=settings.environment,
        default_integrations=False,
        integrations=[
            AtexitIntegration(callback=lambda pending, timeout: None),
            DedupeIntegration(),
            ExcepthookIntegration(),
            LoggingIntegration(level=None),  # no breadcrumbs: lines of other turns in this process are noise
        ],
        traces_sample_rate=settings.trace_sample or None,
        stream_gen_ai_spans=False,  # model calls stay in their transaction, which every Sentry understands
        trace_propagation_targets=[],
        before_send=_without_words,
        include_local_variables=False,
        max_request_body_size="never",
        send_default_pii=False,
        auto_session_tracking=False,
    )
    sdk, sample = sentry_sdk, settings.trace_sample


def capture(_logger: object, method: str, event: EventDict) -> EventDict:
    """A structlog processor: an error line is reported and passes on unchanged."""
    if sdk is not None and method in _ERRORS:
        with sdk.new_scope() as scope:
            scope.set_tag("event", event["event"])
            for name in IDS:
                if name in event:
                    scope.set_tag(name, event[name])
            error = event.get("exc_info")
            if isinstance(error, BaseException):
                sdk.capture_exception(error)
            elif error:  # True or a tuple, in logging's manner
                sdk.capture_exception()
            else:
                sdk.capture_message(event["event"], level="fatal" if method == "critical" else "error")
    return event


def _without_words(event: Any, _hint: Any) -> Any:
    """Messages of exceptions that are not ours go, and arguments of log lines: they may quote what a user wrote."""
    for error in event.get("exception", {}).get("values", []):
        if error.get("module") != "shared.errors":
            error["value"] = _WITHHELD
    if line := event.get("logentry"):
        event["logentry"] = {"message": line.get("message")}
    known = context.everything()
    tags = event.setdefault("tags", {})
    for name in IDS:
        if name in known:
            tags.setdefault(name, str(known[name]))
    return event
