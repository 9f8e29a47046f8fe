"""Redis cut in the middle of a batch, Postgres away: the provider is told to come again, and nothing is there twice."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.config import Settings
from tests.channels.conftest import Line, through_another
from tests.channels.providers import WhatsApp
from tests.conftest import Database
from tests.ingress.harness import Gate

META = WhatsApp()


class Cutter:
    """A way to Redis that ends its connections after so many bytes of a client's."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.after_bytes: int | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Cutter":
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, there]
        await asyncio.gather(self._pump(reader, there, writer), self._back(there_reader, writer))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while data := await _read(source):
            if self.after_bytes is not None:
                data, self.after_bytes = data[: self.after_bytes], self.after_bytes - len(data)
            sink.write(data)
            if self.after_bytes is not None and self.after_bytes <= 0:
                await sink.drain()
                client.transport.abort()  # the server still runs what it was given
                break
        sink.close()

    async def _back(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await _read(source):
            sink.write(data)
        sink.close()


async def _read(source: asyncio.StreamReader) -> bytes:
    try:
        return await source.read(65_536)
    except ConnectionError:
        return b""


@pytest.fixture
async def cutter(redis_url: str) -> AsyncIterator[Cutter]:
    async with Cutter(int(redis_url.split(":")[2].split("/", maxsplit=1)[0])) as made:
        yield made


async def test_redis_cut_within_a_batch_loses_nothing_and_doubles_nothing(
    whatsapp: Line, settings: Settings, cutter: Cutter, queued
) -> None:
    texts = [f"message {n}" for n in range(40)]
    batch = META.batch([META.text(text, user=str(n % 5)) for n, text in enumerate(texts)])
    database = settings.redis_url.rpartition("/")[2]
    through = f"redis://127.0.0.1:{cutter.port}/{database}"
    async with through_another(whatsapp, settings, redis_url=through) as shaky:
        await shaky.deliver(META.message("warm"))
        cutter.after_bytes = 20_000  # about half of them
        response = await shaky.deliver(batch)
        assert response.status_code == 503, "both tries were cut"
        some = len(await queued())
        assert 1 < some < len(texts) + 1
        cutter.after_bytes = None
        assert (await shaky.deliver(batch)).status_code == 200
    turns = [turn.message for turn in await queued()]
    assert sorted(turns) == sorted(["warm", *texts])


async def test_channels_that_are_known_go_on_without_postgres(
    whatsapp: Line, settings: Settings, postgres, with_keys: Database, queued
) -> None:
    [target] = [path for path in postgres.sockets.iterdir() if path.name.startswith(".s.PGSQL.") and path.is_socket()]
    gate = Gate(str(target))
    way = f"postgresql://switchboard_app@/{with_keys.name}?host={gate.folder}"
    await gate.open()
    async with through_another(whatsapp, settings, database_url=way, key_cache_ttl_s=1e-6) as line:
        assert (await line.deliver(META.message("before"))).status_code == 200
        await gate.shut()
        assert (await line.deliver(META.message("meanwhile"))).status_code == 200
        unknown = await line.client.post("/v1/channels/ch-0000000000000000/webhook", content=b"{}")
        assert unknown.status_code == 503
    await gate.aclose()
    assert [turn.message for turn in await queued()] == ["before", "meanwhile"]
