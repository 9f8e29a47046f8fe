"""Moving memory from one model to another: nothing is lost, nothing is missing meanwhile, whoever is killed when."""

import asyncio
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from ops.cli import app
from shared.config import environment_name
from shared.errors import ConfigError
from tests.conftest import Database, Eventually
from tests.embeddings.harness import SHORT, SMALL, SUBJECTS, Memory, Process
from workers.embeddings import upkeep
from workers.embeddings.catalog import Known, read_name


async def states(memory: Memory) -> dict[str, str]:
    return {row["name"]: row["state"] for row in await memory.admin.fetch("SELECT name, state FROM embedding_models")}


async def rounds(process: Process, number: int = 6) -> None:
    """As the loop does them, without its pauses."""
    for _ in range(number):
        await process.upkeep.round()


async def activate(memory: Memory, name: str, *, force: bool = False) -> Any:
    return await memory.admin.fetchval("SELECT activate_embedding_model($1, $2)", name, force)


async def test_a_model_is_built_beside_the_one_that_serves(memory: Memory, process: Process) -> None:
    old = await memory.said("acme", "ann", "my dog is called Rex", "I live in Oslo")
    await rounds(process)
    await memory.admin.fetchval("SELECT add_embedding_model($1, 256, 0.2)", SHORT)
    assert await activate(memory, SHORT) == "incomplete"
    new = await memory.said("acme", "bob", "said while it is built")
    await rounds(process)
    assert await memory.embedded(SHORT) == sorted(old + new)
    assert await memory.embedded(SMALL) == sorted(old + new)
    assert await activate(memory, SHORT) is None
    assert await states(memory) == {SMALL: "building", SHORT: "active"}

    later = await memory.said("acme", "bob", "said after it")
    await rounds(process)
    assert await memory.embedded(SMALL) == sorted(old + new + later), "kept up to date, so that one can go back"
    assert await activate(memory, SMALL) is None


async def test_what_fails_for_good_does_not_stop_the_change(memory: Memory, process: Process) -> None:
    await memory.behave(
        {"match": "poison", "model": "text-embedding-3-small", "faults": [{"status": 400, "times": 99}]}
    )
    await memory.said("acme", "ann", "fine", "poison")
    await rounds(process)
    await memory.admin.fetchval("SELECT add_embedding_model($1, 256, 0.2)", SHORT)
    for _ in range(6):
        await rounds(process, 1)
        await memory.due()
    assert await activate(memory, SHORT) is None


async def test_a_retired_model_leaves_no_vector_and_can_come_back(memory: Memory, process: Process) -> None:
    items = await memory.said("acme", "ann", *(f"note {number}" for number in range(7)))
    items += await memory.said("acme", "bob", "another")
    await memory.admin.fetchval("SELECT add_embedding_model($1, 256, 0.2)", SHORT)
    await rounds(process)
    assert await memory.admin.fetchval("SELECT retire_embedding_model($1)", SMALL) == "active"
    await activate(memory, SHORT)
    assert await memory.admin.fetchval("SELECT retire_embedding_model($1)", SMALL) == "too_soon"
    await memory.admin.execute("UPDATE embedding_models SET activated_at = now() - interval '1 minute'")
    assert await memory.admin.fetchval("SELECT retire_embedding_model($1)", SMALL) is None
    await memory.said("acme", "eve", "not for the one that goes")
    await rounds(process)
    assert await states(memory) == {SMALL: "retired", SHORT: "active"}
    assert await memory.embedded(SMALL) == []
    assert await memory.pending(SMALL) == []
    assert len(await memory.embedded(SHORT)) == 9

    await memory.admin.fetchval("SELECT add_embedding_model($1, 1536, 0.2)", SMALL)
    await rounds(process)
    assert len(await memory.embedded(SMALL)) == 9


async def test_retiring_goes_on_where_a_killed_process_left_off(
    memory: Memory, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "FORGET", 3)
    for user in ("ann", "bob", "cat", "dan"):
        await memory.said("acme", user, "one", "two")
    await memory.admin.fetchval("SELECT add_embedding_model($1, 256, 0.2)", SHORT)
    await rounds(process)
    await activate(memory, SHORT)
    await memory.admin.execute("UPDATE embedding_models SET activated_at = now() - interval '1 minute'")
    await memory.admin.fetchval("SELECT retire_embedding_model($1)", SMALL)
    await rounds(process, 1)
    assert 0 < len(await memory.embedded(SMALL)) < 8
    async with memory.process() as another:
        await rounds(another, 8)
    assert (await states(memory))[SMALL] == "retired"
    assert len(await memory.embedded(SHORT)) == 8


async def test_filling_goes_on_where_a_killed_process_left_off(
    memory: Memory, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "FILL", 2)
    items = await memory.said("acme", "ann", *(f"note {number}" for number in range(9)))
    await rounds(process)
    await memory.admin.fetchval("SELECT add_embedding_model($1, 256, 0.2)", SHORT)
    await rounds(process, 2)
    assert 0 < len(await memory.embedded(SHORT)) < 9
    async with memory.process() as another:
        await rounds(another, 8)
    assert await memory.embedded(SHORT) == items


async def test_the_first_model_comes_from_the_settings(memory: Memory) -> None:
    await memory.admin.execute("DELETE FROM embedding_models")
    both = memory.settings.model_copy(update={"embedding_model": SHORT})
    async with upkeep.embedding(both, memory.commands, memory.ops, SUBJECTS):
        assert await states(memory) == {SHORT: "active"}
    other = memory.settings.model_copy(update={"embedding_model": SMALL})
    async with upkeep.embedding(other, memory.commands, memory.ops, SUBJECTS):
        assert await states(memory) == {SHORT: "active"}, "changed by command, never by a setting"


async def test_the_loop_survives_what_goes_wrong(
    memory: Memory, process: Process, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "OUTAGE_S", 0.01)
    rounds_made = []
    real = process.upkeep.round

    async def broken() -> float:
        rounds_made.append(1)
        if len(rounds_made) < 3:
            raise RuntimeError("a fault of ours")
        return await real()

    monkeypatch.setattr(process.upkeep, "round", broken)
    running = asyncio.create_task(process.upkeep.run())
    await memory.said("acme", "ann", "hello")
    await eventually(memory.embedded)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("local:all-minilm-l6-v2", Known("local", "all-minilm-l6-v2", 384, False)),
        ("openai:text-embedding-3-large", Known("openai", "text-embedding-3-large", 3072, False)),
        ("openai:text-embedding-3-large@256", Known("openai", "text-embedding-3-large", 256, True)),
        ("openai:intfloat/e5-mistral@4000", Known("openai", "intfloat/e5-mistral", 4000, False)),
    ],
)
def test_a_name_says_what_a_model_is(name: str, known: Known) -> None:
    assert read_name(name) == known


@pytest.mark.parametrize(
    "name",
    ["", "minilm", "local:other", "local:all-minilm-l6-v2@128", "openai:bge-m3", "openai:bge-m3@0", "openai:x@4001",
     "openai:text-embedding-3-small@2000", "anthropic:voyage@3"],
)  # fmt: skip
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        read_name(name)


async def command(memory: Memory, database: Database, *words: str) -> tuple[int, str]:
    """Exit code and everything that was said; in a thread, as the command has an event loop of its own."""
    environment = {
        environment_name("redis_url"): memory.settings.redis_url,
        environment_name("database_url"): database.app,
        environment_name("ops_database_url"): database.ops,
    }
    try:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["memory", *words], env=environment)
    finally:
        structlog.reset_defaults()  # the command logs to a stderr that is closed now
    return result.exit_code, result.output + (str(result.exception) if result.exception else "")


async def test_models_are_managed_from_the_command_line(memory: Memory, process: Process, database: Database) -> None:
    await memory.said("acme", "ann", "my dog is called Rex")
    running = asyncio.create_task(process.upkeep.run())
    try:
        code, said = await command(memory, database, "models", "add", SHORT, "--activate")
        assert (code, f"memory is searched by {SHORT} from now on" in said) == (0, True), said
        code, said = await command(memory, database, "models", "list")
        assert [line.split("\t")[:3] for line in said.splitlines()] == [
            [SHORT, "active", "256"],
            [SMALL, "building", "1536"],
        ]
        code, said = await command(memory, database, "models", "retire", SHORT)
        assert (code, "activate another one first" in said) == (1, True), said
        await memory.admin.execute("UPDATE embedding_models SET activated_at = now() - interval '1 minute'")
        code, said = await command(memory, database, "models", "retire", SMALL)
        assert code == 0, said
        code, said = await command(memory, database, "models", "progress", SHORT, "--json")
        assert (code, '"done":1' in said, '"gap":0' in said) == (0, True, True), said
    finally:
        running.cancel()
        await asyncio.wait([running])
    for wrong in (["models", "activate", "openai:none@8"], ["models", "add", "minilm"], ["late", "acme", "x"]):
        code, said = await command(memory, database, *wrong)
        assert code != 0, (wrong, said)


async def test_what_is_late_is_shown_by_job(memory: Memory, process: Process, database: Database) -> None:
    await memory.said("acme", "ann", "my dog is called Rex")
    job = str(await memory.admin.fetchval("SELECT job_id FROM messages"))
    await memory.behave({"faults": [{"status": 500}]})
    await process.round(await memory.model())
    code, said = await command(memory, database, "late", "acme", job)
    assert code == 0
    assert said.split("\t")[0] == SMALL
    assert "upstream_unavailable" in said
    assert await command(memory, database, "late", "other", job) == (0, "")
