"""Lines have one form, and none has what somebody said: neither a library's nor an exception's."""

import asyncio
import io
import logging
import sys
from contextvars import copy_context
from typing import Any

import msgspec
import pytest
import structlog

from shared import telemetry
from shared.config import Settings
from shared.errors import Unavailable
from shared.telemetry import context, logs
from tests.telemetry.conftest import Lines


def configure(**settings: Any) -> None:
    telemetry.configure(Settings.read({"log_format": "json", **settings}))


log = structlog.get_logger("test")


def test_a_line_is_json_with_its_level_its_time_and_the_ids_of_its_context(lines: Lines) -> None:
    configure()
    with structlog.contextvars.bound_contextvars(job_id="j", request_id="r"):
        log.info("job", cost_usd="0.1", when=object)
    (line,) = lines.all()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "job", "level": "info", "job_id": "j", "request_id": "r",
        "cost_usd": "0.1", "when": "<class 'object'>",
    }  # fmt: skip


def test_a_librarys_line_takes_the_same_form(lines: Lines) -> None:
    configure()
    with structlog.contextvars.bound_contextvars(request_id="r"):
        logging.getLogger("asyncio").warning("slow: %s", "a task")
    (line,) = lines.all()
    assert (line["event"], line["level"], line["logger"]) == ("slow: a task", "warning", "asyncio")
    assert line["request_id"] == "r"


@pytest.mark.parametrize(
    ("level", "seen"), [("DEBUG", ["debug", "info", "error"]), ("INFO", ["info", "error"]), ("ERROR", ["error"])]
)
def test_the_level_is_a_setting_and_can_be_changed(lines: Lines, level: str, seen: list[str]) -> None:
    configure(log_level="WARNING")
    configure(log_level=level)
    log.debug("one")
    log.info("two")
    log.error("three")
    assert [line["level"] for line in lines.all()] == seen


@pytest.mark.parametrize("name", ["openai._base_client", "anthropic", "httpcore2.http11", "asyncpg", "somebody.else"])
def test_libraries_say_nothing_at_debug_where_some_print_prompts_and_keys(lines: Lines, name: str) -> None:
    configure(log_level="DEBUG")
    logging.getLogger(name).debug("Request options: %s", {"json_data": "the user's words"})
    assert lines.text == ""


def test_an_exception_is_told_by_type_and_place_and_its_message_only_where_it_is_ours(lines: Lines) -> None:
    configure()
    try:
        try:
            int("the user's words")
        except ValueError as error:
            raise Unavailable("Postgres cannot be reached") from error
    except Unavailable as error:
        log.exception("turn.broke", exc_info=error)
        logging.getLogger("library").exception("again")
    for line in lines.all():
        ours, cause = line["exception"]
        assert (ours["type"], ours["message"]) == ("Unavailable", "Postgres cannot be reached")
        assert (cause["type"], "message" in cause) == ("ValueError", False)
        assert __file__ in ours["frames"][-1]
    assert "user's words" not in lines.text


def test_half_an_emoji_costs_no_line(lines: Lines) -> None:
    configure()
    log.info("request", path="/\ud83d")
    assert lines.all()[0]["path"] == "/\ud83d"


def test_lines_for_people_are_text(lines: Lines) -> None:
    configure(log_format="console")
    log.info("worker.metrics", port=9400)
    assert "worker.metrics" in lines.text
    assert not lines.text.startswith("{")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(("level", "seen"), [("DEBUG", 2), ("INFO", 2), ("WARNING", 0)])
def test_a_requests_line_is_as_any_other_and_says_what_the_request_found_out(
    lines: Lines, form: str, level: str, seen: int
) -> None:
    configure(log_format=form, log_level=level)
    copy_context().run(_two_requests)
    assert len(lines.text.splitlines()) == seen
    if seen and form == "json":
        usual, wide = ({**line, "timestamp": len(line["timestamp"])} for line in lines.all())
        assert usual == wide
        assert wide.items() >= {"request_id": "r-2", "job_id": "j", "status": 202}.items()
        assert "tenant" not in wide


def _two_requests() -> None:
    """On one connection, and so in one context; what is said of the second is said in both ways."""
    context.begin(request_id="r-1", tenant="a")
    context.begin(request_id="r-2")
    context.bind(job_id="j")
    log.info("request", status=202)
    logs.wide("request", status=202)


class Stream(io.StringIO):
    """Standard output that tells what it was asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def write(self, text: str) -> int:
        self.done.append(msgspec.json.decode(text)["event"])
        return super().write(text)

    def flush(self) -> None:
        self.done.append("flush")


async def test_the_lines_of_one_tick_are_flushed_together_and_in_their_place(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Stream()
    monkeypatch.setattr(sys, "stdout", out)
    configure()
    logs.wide("one")
    log.warning("two")
    logs.wide("three")
    assert out.done == ["one", "two", "flush", "three"]
    await asyncio.sleep(0)
    assert out.done[4:] == ["flush"]
    logs.wide("four")
    await asyncio.sleep(0)
    assert out.done[5:] == ["four", "flush"]


def test_a_line_without_a_loop_is_flushed_at_once(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Stream()
    monkeypatch.setattr(sys, "stdout", out)
    configure()
    logs.wide("one")
    assert out.done == ["one", "flush"]


def test_a_loop_that_ended_with_lines_unflushed_keeps_no_later_one_back(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Stream()
    monkeypatch.setattr(sys, "stdout", out)
    configure()
    for event in ("one", "two"):
        loop = asyncio.new_event_loop()
        loop.call_soon(logs.wide, event)
        loop.call_soon(loop.stop)  # before the tick that would flush
        loop.run_forever()
        if event == "two":
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert out.done == ["one", "two", "flush"]
