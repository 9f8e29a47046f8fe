"""Messages under limits, sent through the intake as ingress does."""

from shared import keys
from shared.ids import uuid7
from shared.rates import Level, Limits, Window
from shared.scripts import Admission, Idempotency, Intake
from shared.wire import TurnPayload


def window(limit: int, *, level: Level = "user", name: str = "ada", length_s: int = 60) -> Window:
    return Window(level, keys.rate(level, name), limit, length_s)


async def send(
    intake: Intake, *windows: Window, job_id: str = "", repeat: Idempotency | None = None, **how: object
) -> Admission:
    """One message, in a conversation of its own."""
    payload = TurnPayload(
        job_id=job_id or uuid7(), tenant="acme", agent="support", conversation_id=uuid7(), message="hello"
    )
    limits = Limits(windows, how.pop("budgets", ()))  # type: ignore[arg-type]
    return await intake.admit(payload, ttl_s=86_400, enqueued_ms=0, idempotency=repeat, limits=limits)
