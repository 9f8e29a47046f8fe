"""`python -m benchmarks.memory --data …/locomo10.json`, or `--scale` for a million memories."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from benchmarks.memory import locomo, table
from benchmarks.memory.quality import measure
from benchmarks.memory.scale import Size, fill_and_ask

app = typer.Typer(add_completion=False)
console = Console()


@app.command()
def main(
    data: Annotated[Path | None, typer.Option(help="LoCoMo's data/locomo10.json")] = None,
    scale: Annotated[bool, typer.Option(help="speed and size with many memories instead")] = False,
    memories: Annotated[int, typer.Option(help="with --scale: messages in all")] = 1_000_000,
    tenants: Annotated[int, typer.Option(help="with --scale")] = 1_000,
) -> None:
    if scale:
        table.show_scale(uvloop.run(fill_and_ask(Size(memories, tenants), console.print)), console)
    elif data is None or not data.is_file():
        raise typer.BadParameter(
            "a file is needed: locomo10.json of github.com/snap-research/LoCoMo", param_hint="--data"
        )
    else:
        asyncio.run(_quality(data))


async def _quality(data: Path) -> None:
    from workers.embeddings.local import LocalEmbedder  # noqa: PLC0415 - onnxruntime is for those who use it

    embedder = LocalEmbedder(threads=2)

    async def embed(texts, *, query=False):  # type: ignore[no-untyped-def]
        found = []
        for start in range(0, len(texts), 64):
            batch = texts[start : start + 64]
            found += (await embedder.embed(batch, "query" if query else "document", timeout_s=600)).vectors
        return found

    try:
        results = await measure(
            locomo.read(data), embed, dimensions=embedder.dimensions, tuned_on=locomo.TUNED_ON, progress=console.print
        )
    finally:
        await embedder.aclose()
    table.show_quality(results, console)


app()
