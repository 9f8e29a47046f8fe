"""Which embedder a name means: `local:all-minilm-l6-v2`, `openai:text-embedding-3-small`, `openai:bge-m3@1024`.

Called by the writer, the query's way and the command line. An embedder is opened once per process, when it is first
wanted; what cannot be opened is said once. A key that is mended needs a restart, like every setting.
"""

import re
from typing import Final, NamedTuple

import structlog

from shared.config import Settings
from shared.errors import ConfigError
from workers.embeddings.api import Embedder
from workers.embeddings.local import MODEL, LocalEmbedder
from workers.embeddings.local import PROVIDER as LOCAL
from workers.ledger import tokens

log = structlog.get_logger("embeddings")

NAMES: Final = re.compile(r"(?P<provider>local|openai):(?P<model>[^\s@]{1,200})(?:@(?P<dimensions>[1-9][0-9]{0,3}))?")
MOST_DIMENSIONS: Final = 4_000
"""What a `halfvec` can be compared in."""

DIMENSIONS: Final = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""Of OpenAI's own models; others must be named with theirs."""

FLOORS: Final = {"local:all-minilm-l6-v2": 0.2, "openai:text-embedding-ada-002": 0.78}
"""Cosine below which nothing is alike, where it was measured (the local one on LoCoMo: 98.9 % of what answers a
question is above it) or is known to differ; for others DEFAULT_FLOOR, or what the command line says."""
DEFAULT_FLOOR: Final = 0.2


class Known(NamedTuple):
    """A model as its name says it."""

    provider: str
    model: str
    dimensions: int
    shortened: bool
    """They are fewer than the model's own, so that the provider must be asked for so many. Of a model we do not know
    nothing is asked: its server may not understand it, and its dimensions are what it has."""


def read_name(name: str) -> Known:
    """Raises ConfigError saying what is wrong with it."""
    found = NAMES.fullmatch(name)
    if found is None:
        raise ConfigError(f"{name!r} names no embedding model: write local:{MODEL} or openai:<model>[@<dimensions>]")
    provider, model, given = found["provider"], found["model"], found["dimensions"]
    if provider == LOCAL:
        if model != MODEL or given:
            raise ConfigError(f"{name!r}: the one local model is local:{MODEL}, of 384 dimensions")
        return Known(provider, model, LocalEmbedder.dimensions, shortened=False)
    own = DIMENSIONS.get(model)
    dimensions = int(given) if given else own
    if dimensions is None:
        raise ConfigError(f"{name!r}: say how many dimensions it has, as in openai:{model}@1024")
    if dimensions > MOST_DIMENSIONS or (own is not None and dimensions > own):
        raise ConfigError(f"{name!r}: at most {min(own or MOST_DIMENSIONS, MOST_DIMENSIONS)} dimensions")
    return Known(provider, model, dimensions, shortened=own not in (None, dimensions))


def floor_of(name: str) -> float:
    return FLOORS.get(name.partition("@")[0], DEFAULT_FLOOR)


def open_embedder(name: str, settings: Settings) -> Embedder:
    """Connects to nothing yet. Raises ConfigError for what a person must mend: name, key, installation."""
    known = read_name(name)
    if known.provider == LOCAL:
        return LocalEmbedder(threads=settings.embedding_threads)
    key = settings.embedding_api_key or settings.openai_api_key
    if key is None:
        raise ConfigError(f"{name} needs OPENAI_API_KEY, or SWITCHBOARD_EMBEDDING_API_KEY")
    # The SDK and the tokenizer: a second of a process that may never ask for any of it.
    from workers.embeddings.openai import OpenAIEmbedder  # noqa: PLC0415

    tokens.load(known.model)
    return OpenAIEmbedder(
        known.model,
        name=name,
        api_key=key.get_secret_value(),
        base_url=settings.embedding_base_url or settings.openai_base_url,
        dimensions=known.dimensions,
        shortened=known.shortened,
        idle_timeout_s=settings.model_idle_timeout_s,
    )


class Shelf:
    """The embedders of one process, by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[str, Embedder | None] = {}

    def get(self, name: str) -> Embedder | None:
        """None when this process cannot have it; why is logged, once."""
        if name not in self._open:
            try:
                self._open[name] = open_embedder(name, self._settings)
            except ConfigError as error:
                log.error("embeddings.unreachable", model=name, fault=str(error))  # noqa: TRY400 - a person's fault, not ours
                self._open[name] = None
        return self._open[name]

    async def aclose(self) -> None:
        for embedder in self._open.values():
            if embedder is not None:
                await embedder.aclose()
