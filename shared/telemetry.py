"""Structured logs: one line per event, JSON or coloured text, ids bound by context, never message text.

Every process calls `configure` once at its start. Lines of the libraries (uvicorn, asyncpg, redis) take the same form.
Loggers come from `structlog.get_logger()`; `structlog.contextvars.bind_contextvars` adds fields to all lines of the
current request or job.
"""

import logging
import sys
from typing import IO

import structlog

from shared.config import Settings

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


class _Stdout(logging.StreamHandler[IO[str]]):
    """Writes to whatever `sys.stdout` is at that moment, so that it may be replaced while we run."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def configure(settings: Settings) -> None:
    """Send everything that is logged to standard output. Calling it again changes level and form."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # loggers are made at import, before this is called
    )
    stdout = _Stdout()
    stdout.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(settings.log_format)],
        )
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stdout)]:
        root.removeHandler(handler)
    root.addHandler(stdout)
    root.setLevel(settings.log_level)
    _report_errors(settings)
    for chatty in ("httpx", "httpx2", "arq.worker"):  # a line per request or job of their own; ours are wide
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _report_errors(settings: Settings) -> None:
    """With `SENTRY_DSN`: what is logged as an error goes to Sentry, without anybody's words.

    Local variables and request bodies hold messages of users, so neither leaves this process.
    """
    if settings.sentry_dsn is None:
        return
    import sentry_sdk  # noqa: PLC0415 - 0.2 s that nobody without Sentry should wait for

    sentry_sdk.init(
        settings.sentry_dsn.get_secret_value(),
        environment=settings.environment,
        include_local_variables=False,
        max_request_body_size="never",
        send_default_pii=False,
        max_breadcrumbs=20,
    )


def _renderer(log_format: str) -> list[structlog.typing.Processor]:
    if log_format == "console":
        return [
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # locals hold what users wrote
    return [structlog.processors.ExceptionRenderer(frames), structlog.processors.JSONRenderer(default=str)]
