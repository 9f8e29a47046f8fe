"""Errors reach Sentry with their ids and without anybody's words; without a DSN Sentry is not there at all."""

import json
import subprocess
import sys
from pathlib import Path

from tests.telemetry.sentry import sentry

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, logging, sys
import sentry_sdk, structlog
from shared import telemetry
from shared.config import Settings
from shared.errors import Unavailable

telemetry.configure(Settings.read({"sentry_dsn": sys.argv[1], "environment": "development"}))
structlog.contextvars.bind_contextvars(request_id="r-1", conversation_id="c-1", message="hunter2")

def answer(message):
    try:
        raise ValueError(f"cannot read {message!r}")
    except ValueError as error:
        raise Unavailable("Postgres cannot be reached") from error

log = structlog.get_logger("turn")
try:
    answer("my password is hunter2")
except Unavailable as error:
    log.error("turn.broke", job_id="j-1", exc_info=error)
    logging.getLogger("asyncio").error("a library fails on %s", "hunter2", exc_info=error.__cause__)
log.info("turn.fine")
log.critical("no.exception")
asyncio.run(telemetry.flush())
"""


def ran(program: str, *args: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *args], cwd=ROOT, capture_output=True, check=True, timeout=300
    )
    return done.stdout.decode().splitlines()


def test_an_error_reaches_sentry_with_its_ids_and_without_the_words_of_a_user() -> None:
    with sentry() as server:
        lines = ran(PROGRAM, server.dsn)
    ours, library, bare = server.items("event")
    assert b"hunter2" not in server.sent
    assert [error["type"] for error in ours["exception"]["values"]] == ["ValueError", "Unavailable"]
    assert ours["exception"]["values"][1]["value"] == "Postgres cannot be reached"
    ids = {"job_id": "j-1", "request_id": "r-1", "conversation_id": "c-1", "event": "turn.broke"}
    assert ids.items() <= ours["tags"].items()
    assert library["logentry"] == {"message": "a library fails on %s"}
    assert library["tags"]["request_id"] == "r-1"
    assert (bare["message"], bare["level"]) == ("no.exception", "fatal")
    line = json.loads(lines[0])
    assert (line["event"], line["job_id"], line["level"]) == ("turn.broke", "j-1", "error")
    assert [error["type"] for error in line["exception"]] == ["Unavailable", "ValueError"]


def test_without_a_dsn_the_sdk_is_not_imported() -> None:
    program = """
import sys
from shared import telemetry
from shared.config import Settings
import ingress.app, workers.main, ops.console.app
telemetry.configure(Settings.read({"trace_sample": 1.0}))
print("sentry_sdk" in sys.modules)
"""
    assert ran(program) == ["False"]
