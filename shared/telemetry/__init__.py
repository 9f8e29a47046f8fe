"""What a process tells of itself: lines, errors, traces, numbers; never what anybody said.

Every process calls `configure` once at its start. `logs` writes JSON lines, `reports` sends errors to Sentry, `tracing`
follows one message through the queue, `metrics` holds what Prometheus reads. What each of them holds is described in
docs/observability.md.
"""

import asyncio

from shared.config import Settings
from shared.telemetry import context, logs, reports

FLUSH_S = 2.0


def configure(settings: Settings) -> None:
    """Calling it again changes level and form of the lines."""
    context.configure(settings.erasure_key.get_secret_value() or settings.secret.get_secret_value())
    reports.configure(settings)
    logs.configure(settings)


async def flush() -> None:
    """Before a process ends by its signal, which leaves Sentry no time of its own."""
    if reports.sdk is not None:
        await asyncio.to_thread(reports.sdk.flush, FLUSH_S)
