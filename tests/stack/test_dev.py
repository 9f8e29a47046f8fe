"""`switchboard dev` as people use it: a real process with all its children, started, hurt and ended."""

import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.stack.dev_process import (
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    DevStack,
    Person,
    assert_gone,
    clean_environment,
    free_base_port,
    launch,
    people,
    running,
    wait_for,
)

PEOPLE = people()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, and open to every user: an ordinary one of the machine has to work in it."""
    path = Path(tempfile.mkdtemp(prefix="switchboard-dev-"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[DevStack]:
    """One stack for the tests that leave it as they found it."""
    with running(folder / "shared") as started:
        yield started


def say(stack: DevStack, message: str) -> dict[str, Any]:
    """Send a message and wait for the end of its job."""
    with stack.api() as api:
        taken = api.post("/v1/agents/support/messages", json={"message": message})
        assert taken.status_code == 202, taken.text
        ended: dict[str, Any] = api.get(taken.headers["Location"], headers={"Prefer": "wait=60"}).json()
        return ended


@pytest.mark.parametrize("person", PEOPLE.values(), ids=PEOPLE.keys())
def test_it_starts_answers_stops_without_a_trace_and_finds_its_data_again(folder: Path, person: Person) -> None:
    data = folder / f"data-{person.user}"
    with running(data, person=person) as stack:
        with stack.api() as api:
            for health in ("live", "ready", "stack"):
                assert api.get(f"/health/{health}").status_code == 200
        job = say(stack, "Hello!")
        assert job["state"] == "succeeded", job
        family = stack.family()
        assert len(family) >= 5
        assert stack.stop(signal.SIGTERM) == 0
        assert "did not end" not in stack.text
        assert "route=/health/" not in stack.text, "who waits for it to be well need not be told each time"
    assert_gone(family)
    assert not (data / "stack.lock").exists()
    assert not (data / "env").exists()

    with running(data, person=person) as stack:
        with stack.api() as api:
            assert api.get(f"/v1/jobs/{job['id']}").json()["reply"] == job["reply"]
        assert stack.stop(signal.SIGINT) == 0


def test_the_console_stands_beside_the_ingress_and_takes_the_development_key(stack: DevStack) -> None:
    console = f"http://127.0.0.1:{stack.port + 1}"
    assert f"console    {console}" in stack.text
    headers = {"Authorization": "Bearer sk-switchboard-dev"}
    with httpx.Client(base_url=console, headers=headers, timeout=90, trust_env=False) as api:
        assert api.get("/v1/dead-jobs").json() == {"object": "list", "data": [], "next_cursor": None}
        (queue,) = api.get("/v1/queues").json()["data"]
    assert (queue["queue"], queue["live_workers"]) == ("default", 1)


def test_chat_through_a_pipe_prints_replies_and_nothing_else_to_stdout(stack: DevStack, folder: Path) -> None:
    chat = subprocess.run(
        [Person().python, "-m", "ops", "chat", "--url", stack.url, "--user", "ada"],
        cwd=Path(__file__).parent.parent.parent,
        env=clean_environment(folder),
        input="My name is Ada.\n\nWhat is my name?\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert chat.returncode == 0, chat.stderr
    first, second = chat.stdout.splitlines()
    assert "My name is Ada." in first
    assert "What is my name?" in second
    assert chat.stderr.count("tokens in") == 2


@pytest.mark.timeout(400)  # three commands, each of which loads everything
def test_another_terminal_reads_where_everything_is(stack: DevStack, folder: Path) -> None:
    env = folder / "shared" / "env"
    assert f". {env}\n" in stack.text
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    commands = f"""
        set -e
        . {env}
        python -m ops doctor
        python -m ops endpoints create dev http://127.0.0.1:9/hook
        echo '{{"bot_token": "123:abc", "secret_tokens": ["s3cret"]}}' |
            python -m ops channels create dev telegram --agent support --credentials -
    """
    shell = subprocess.run(
        ["/bin/sh", "-c", commands],
        cwd=Path(__file__).parent.parent.parent,
        env=clean_environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert "whsec_" in shell.stdout
    assert "/webhook" in shell.stdout


def test_two_stacks_run_side_by_side_and_know_nothing_of_each_other(stack: DevStack, folder: Path) -> None:
    mine = say(stack, "Here.")
    with running(folder / "other") as other:
        theirs = say(other, "There.")
        assert (mine["state"], theirs["state"]) == ("succeeded", "succeeded")
        with stack.api() as api:
            assert api.get(f"/v1/jobs/{theirs['id']}").status_code == 404


def test_a_second_start_on_the_same_data_names_the_first_one(stack: DevStack, folder: Path) -> None:
    second = launch(folder / "shared", free_base_port())
    assert second.process.wait(STOP_TIMEOUT_S) == 1
    assert second.text == (
        f"switchboard: a stack on {folder / 'shared'} is already running (pid {stack.process.pid})\n"
    )


@pytest.mark.parametrize(("offset", "use"), [(0, "ingress"), (1, "console"), (2, "stand-in models")])
def test_a_port_in_use_is_one_clear_line_before_anything_starts(folder: Path, offset: int, use: str) -> None:
    base = free_base_port()
    with socket.create_server(("127.0.0.1", base + offset)):
        refused = launch(folder / "no-port", base)
        assert refused.process.wait(STOP_TIMEOUT_S) == 1
    assert refused.text == (
        f"switchboard: 127.0.0.1:{base + offset} for the {use} is not free (Address already in use): use --port\n"
    )
    assert list((folder / "no-port").iterdir()) == []


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "switchboard: Redis does not answer: "),
        ({"DATABASE_URL": "postgresql://somebody@127.0.0.1:1/x"}, "switchboard: PostgreSQL: cannot reach Postgres: "),
        ({"PORT": "eight"}, "switchboard: PORT='eight': "),
    ],
)
def test_a_given_part_that_does_not_answer_is_one_clear_line(folder: Path, env: dict[str, str], line: str) -> None:
    refused = launch(folder / "dead-part", None if "PORT" in env else free_base_port(), env=env)
    assert refused.process.wait(STOP_TIMEOUT_S) == (2 if "PORT" in env else 1)
    assert refused.text.startswith(line)
    assert refused.text.count("\n") == 1


def test_a_killed_worker_is_started_again(stack: DevStack) -> None:
    worker = stack.child("ops worker")
    worker.kill()
    wait_for(lambda: any(other != worker for other in stack.children("ops worker")), START_TIMEOUT_S)
    assert say(stack, "Still there?")["state"] == "succeeded"
    assert "worker-1  killed by SIGKILL; starting it again" in stack.text


def test_a_part_that_dies_stops_the_stack_with_its_name_and_the_tail_of_its_log(folder: Path) -> None:
    with running(folder / "hurt") as stack:
        family = stack.family()
        stack.child("ops ingress").kill()
        assert stack.process.wait(STOP_TIMEOUT_S) == 1
    assert "switchboard: ingress ended unexpectedly (killed by SIGKILL)\n    " in stack.text
    assert_gone(family)
    assert not (folder / "hurt" / "stack.lock").exists()


def test_a_stack_that_is_killed_takes_its_processes_with_it_and_starts_again(folder: Path) -> None:
    with running(folder / "killed") as stack:
        job = say(stack, "Remember this.")
        family = stack.family()
        stack.process.kill()
        stack.process.wait()
    assert_gone(family)
    with running(folder / "killed") as again, again.api() as api:
        assert api.get(f"/v1/jobs/{job['id']}").json()["reply"] == job["reply"]


def test_the_servers_of_a_root_stack_do_not_run_as_root(stack: DevStack) -> None:
    servers = [one for one in stack.family() if Path(one.exe()).name in {"valkey-server", "postgres"}]
    assert len(servers) >= 2
    assert all(psutil.Process(server.pid).uids().effective != 0 for server in servers)
