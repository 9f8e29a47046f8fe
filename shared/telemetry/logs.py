"""One line per event on standard output: JSON, or coloured text for people.

Our loggers come from `structlog.get_logger()` and write straight away, a third of the price of a way through `logging`;
`context` holds the fields that all lines of the current request or job share. Lines of libraries take
the same form, from INFO on: at DEBUG some of them print what they send, prompts and keys included.
"""

import asyncio
import json
import logging
import sys
import time
import traceback
from typing import IO, Any

import msgspec
import structlog
from structlog.typing import EventDict, ExcInfo, Processor

from shared.config import Settings
from shared.errors import SwitchboardError
from shared.jobs import rfc3339
from shared.telemetry import context, reports

MAX_FRAMES = 30
MAX_CAUSES = 8

_SHARED: list[Processor] = [
    context.merge,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
_CHATTY = ("httpx", "httpx2", "openai", "anthropic", "arq.worker")
"""Loggers with a line per request or job of their own; ours are wide."""


class _Stdout(logging.StreamHandler[IO[str]]):
    """Writes to whatever `sys.stdout` is at that moment, so that it may be replaced while we run."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def configure(settings: Settings) -> None:
    """Send everything that is logged to standard output."""
    global _straight  # noqa: PLW0603 - like structlog's own configuration, one per process
    level = logging.getLevelNamesMapping()[settings.log_level]
    renderer = _renderer(settings.log_format)
    structlog.configure(
        processors=[*_SHARED, reports.capture, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(),
        cache_logger_on_first_use=False,  # loggers are made at import, before this is called
    )
    _straight = settings.log_format != "console" and level <= logging.INFO
    stdout = _Stdout()
    stdout.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stdout)]:
        root.removeHandler(handler)
    root.addHandler(stdout)
    root.setLevel(max(logging.INFO, level))
    logging.getLogger("switchboard").setLevel(level)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, level))


_straight = False
"""Whether lines are JSON, and those of level INFO are written."""
_log = structlog.get_logger(__name__)


def wide(event: str, **fields: Any) -> None:
    """The one line of a request or a job: as `log.info(event, **fields)` writes it, for a fraction of the price. What
    `structlog.contextvars` holds is not on it: a job's own line names its ids itself."""
    if not _straight:
        _log.info(event, **fields)
        return
    complete(event, {**context.of_request(), **fields})


def complete(event: str, fields: dict[str, Any]) -> None:
    """The same, with all fields given: of a request whose context nobody began. `fields` is ours from now on."""
    if not _straight:
        _log.info(event, **fields)
        return
    fields["event"], fields["level"], fields["timestamp"] = event, "info", rfc3339(time.time_ns() // 1000)
    _lines.write(_json(None, "info", fields) + "\n")


class _Lines:
    """Standard output, flushed once for all lines of one tick of the event loop: a system call each costs more than the
    line. Whatever else is written meanwhile keeps its place among them; killed in between, a process loses the lines
    of a tick."""

    def __init__(self) -> None:
        self._due: tuple[asyncio.AbstractEventLoop, IO[str]] | None = None

    def write(self, line: str) -> None:
        out = sys.stdout
        out.write(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # nothing would come by to flush it
            out.flush()
            return
        if self._due != (loop, out):
            self._due = loop, out
            loop.call_soon(self._flush, out)

    def _flush(self, out: IO[str]) -> None:
        self._due = None
        out.flush()


_lines = _Lines()


def _renderer(log_format: str) -> list[Processor]:
    if log_format == "console":
        return [
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    return [structlog.processors.ExceptionRenderer(_story), _json]


_encoder = msgspec.json.Encoder(enc_hook=str)


def _json(_logger: object, _method: str, event: EventDict) -> str:
    try:
        return _encoder.encode(event).decode()
    except UnicodeEncodeError:  # half an emoji in a path; the slow way escapes it
        return json.dumps(event, default=str)


def _story(exc_info: ExcInfo) -> list[dict[str, Any]]:
    """An exception and its causes: types and places. A message only where it is known to hold nobody's words.

    A driver's complaint may quote the value it did not like, and that may be what a user wrote.
    """
    told: list[dict[str, Any]] = []
    error: BaseException | None = exc_info[1]
    while error is not None and len(told) < MAX_CAUSES:
        frames = [f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}" for frame, line in _walk(error)]
        ours = isinstance(error, (SwitchboardError, OSError))
        message = {"message": str(error)} if ours else {}
        told.append({"type": type(error).__qualname__, **message, "frames": frames[-MAX_FRAMES:]})
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return told


def _walk(error: BaseException) -> list[tuple[Any, int]]:
    return list(traceback.walk_tb(error.__traceback__))
