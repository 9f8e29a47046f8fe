"""What embedding counts. Models come from the table of models, so that labels stay few.

Calls, their tokens and their cost are counted with those of chat models (`switchboard_model_calls`, …).
"""

from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry.metrics import QUICK_S, REGISTRY, child

_TEXTS = (1, 2, 4, 8, 16, 32, 64)

_batches = Histogram("switchboard_embedding_batch_texts", "Texts embedded by one call.", ["model"], registry=REGISTRY,
                     buckets=_TEXTS)  # fmt: skip
_duration = Histogram("switchboard_embedding_call_seconds", "One call for a batch.", ["model"], registry=REGISTRY,
                      buckets=QUICK_S)  # fmt: skip
_failures = Counter("switchboard_embedding_failures", "Texts put off, by why.", ["model", "why"], registry=REGISTRY)
_pending = Gauge(
    "switchboard_embeddings_pending", "Items of memory without their vector.", ["model"], registry=REGISTRY
)
_queries = Counter("switchboard_embedding_queries", "Questions to memory, by what became of their vector.", ["outcome"],
                   registry=REGISTRY)  # fmt: skip
_reused = Counter("switchboard_embeddings_reused", "Texts whose vector was at hand.", ["model"], registry=REGISTRY)


def batch(model: str, texts: int, seconds: float) -> None:
    child(_batches, model).observe(texts)
    child(_duration, model).observe(seconds)


def put_off(model: str, why: str, texts: int) -> None:
    child(_failures, model, why).inc(texts)


def pending(model: str, items: int) -> None:
    child(_pending, model).set(items)


def forget(model: str) -> None:
    """A model that is gone is shown no more."""
    _pending.remove(model)


def query(outcome: str) -> None:
    child(_queries, outcome).inc()


def reused(model: str, texts: int) -> None:
    if texts:
        child(_reused, model).inc(texts)
