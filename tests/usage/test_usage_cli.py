"""`switchboard usage report` as a process, its output in a pipe, and its table for people."""

import asyncio
import csv
import io
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from ops.usage import show
from ops.usage.books import UsageBooks
from shared.config import Settings
from tests.stack.dev_process import REPOSITORY
from tests.turn.deployment import environment_of
from tests.usage.ledger import Ledger, at, question

Run = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]
SPAN = ("--from", "2026-11-01", "--to", "2026-12-01")


@pytest.fixture
def usage(settings: Settings) -> Run:
    async def run(*arguments: str, **changes: str | None) -> "subprocess.CompletedProcess[str]":
        env = {**environment_of(settings), **changes}
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "ops", "usage", "report", *arguments],
            cwd=REPOSITORY,
            env={name: value for name, value in env.items() if value is not None},
            capture_output=True,
            check=False,
            timeout=300,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture(autouse=True)
async def three_calls(ledger: Ledger) -> None:
    await ledger.add(at("2026-11-20T10:00:00"), agent="sales", user_id=None, cost_nano_usd=123_450)
    await ledger.add(at("2026-11-21T10:00:00"), agent="support", status="lost", estimated=True, cost_nano_usd=1)
    await ledger.add(at("2026-11-21T11:00:00"), agent="support", tenant="other", cost_nano_usd=10)


async def test_a_pipe_gets_a_line_a_group_with_headings(usage: Run) -> None:
    done = await usage(*SPAN, "--by", "day,user")
    assert (done.returncode, done.stderr) == (0, "")
    heading, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert heading[:4] == ["day", "user", "jobs", "calls"]
    cost = heading.index("cost_usd")
    assert [(row[:2], row[cost]) for row in rows] == [
        (["2026-11-20", "-"], "0.000123450"),
        (["2026-11-21", "user-1"], "0.000000011"),
    ]


async def test_json_is_what_the_console_answers(usage: Run, books: UsageBooks) -> None:
    done = await usage(*SPAN, "--by", "agent", "--tenant", "acme", "--json")
    asked = question(by="agent", tenant="acme", start="2026-11-01", to="2026-12-01")
    assert json.loads(done.stdout) == (await books.report(asked)).resource()


async def test_csv_adds_up_and_reads_back(usage: Run) -> None:
    done = await usage(*SPAN, "--by", "agent,tenant", "--csv")
    assert done.stdout.count("\r\n") == done.stdout.count("\n") == 4
    rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    assert [(row["agent"], row["tenant"], row["cost_usd"]) for row in rows] == [
        ("sales", "acme", "0.000123450"),
        ("support", "other", "0.000000010"),
        ("support", "acme", "0.000000001"),
    ]
    assert [row["lost_cost_usd"] for row in rows] == ["0.000000000", "0.000000000", "0.000000001"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", 'a "b", c', "two\nlines", "Ünïcode"])
async def test_csv_keeps_every_name_and_lets_none_be_a_formula(ledger: Ledger, books: UsageBooks, name: str) -> None:
    await ledger.add(user_id=name)
    text = show.as_csv(await books.report(question(by="user", user=name)))
    _, row = csv.reader(io.StringIO(text, newline=""))
    assert row[0] == (f"'{name}" if name[0] in "=+-@\t\r" else name)


async def test_people_get_a_table_with_a_total(
    books: UsageBooks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    show.table(await books.report(question(by="agent", top=1)))
    out, err = capsys.readouterr()
    assert all(text in out for text in ("sales", "0.000123450", "total", "0.000123461"))
    assert err == "1 more groups with calls are not shown\n"


async def test_names_cannot_move_the_cursor_or_end_a_line(
    ledger: Ledger, books: UsageBooks, capsys: pytest.CaptureFixture[str]
) -> None:
    await ledger.add(user_id="a\x1b[2J\n\tb")
    show.table(await books.report(question(by="user", user="a\x1b[2J\n\tb")))
    _, row = capsys.readouterr().out.splitlines()
    assert row.startswith("a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b\t1\t")


async def test_fill_and_top_and_filters_reach_the_report(usage: Run) -> None:
    filled = await usage("--from", "2026-11-19", "--to", "2026-11-22", "--fill", "--status", "lost")
    assert [line.split("\t")[:3] for line in filled.stdout.splitlines()[1:]] == [
        ["2026-11-19", "0", "0"],
        ["2026-11-20", "0", "0"],
        ["2026-11-21", "1", "1"],
    ]
    top = await usage(*SPAN, "--by", "conversation,agent", "--top", "1")
    assert [line.split("\t")[1] for line in top.stdout.splitlines()[1:]] == ["sales"]
    assert top.stderr == "1 more groups with calls are not shown\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "cost"], "--by must name some of"),
        (["--from", "yesterday"], "--from must be a day"),
        (["--to", "2026-11-01"], "--to must not be given without"),
        (["--by", "agent", "--fill"], "--fill must not be given without"),
        (["--csv", "--json"], "not both"),
        (["--tenant", ""], "--tenant"),
    ],
)
async def test_what_makes_no_sense_is_said_and_nothing_is_shown(usage: Run, arguments: list[str], said: str) -> None:
    done = await usage(*arguments, COLUMNS="200")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_one_tenant_can_be_asked_about_without_the_operators_role(usage: Run) -> None:
    alone: dict[str, str | None] = {"SWITCHBOARD_OPS_DATABASE_URL": None}
    refused = await usage(*SPAN, **alone)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("switchboard: this database role sees one tenant at a time")
    told = await usage(*SPAN, "--by", "tenant", "--tenant", "other", **alone)
    assert [line.split("\t")[0] for line in told.stdout.splitlines()] == ["tenant", "other"]
