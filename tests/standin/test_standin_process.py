"""The process: it says where it listens, stops cleanly whatever hangs on it, and says why it cannot start."""

import asyncio
import signal

import httpx2
import pytest
from openai import APIConnectionError, AsyncOpenAI, InternalServerError

from tests.conftest import Eventually
from tests.standin.conftest import Control, announced_url, start, stop


def test_it_serves_from_the_moment_it_says_so_and_stops_on_sigint() -> None:
    process = start("--port", "0")
    url = announced_url(process)
    assert httpx2.get(f"{url}/_health").status_code == 200
    assert stop(process, signal.SIGINT) == (0, "")


async def test_it_stops_cleanly_while_callers_hang_on_it(eventually: Eventually) -> None:
    process = start("--port", "0")
    control = Control(await asyncio.to_thread(announced_url, process))
    control.behave({"faults": ["hang"]})
    async with AsyncOpenAI(api_key="k", base_url=f"{control.url}/v1", max_retries=0) as client:
        call = asyncio.create_task(client.embeddings.create(model="m", input="hi"))
        await eventually(lambda: control.served()["concurrency"] == 1)
        control.http.close()
        assert await asyncio.to_thread(stop, process) == (0, "")
        with pytest.raises((APIConnectionError, InternalServerError)):
            await call


def test_a_taken_port_is_named(control: Control) -> None:
    port = control.url.rpartition(":")[2]
    process = start("--port", port)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"
