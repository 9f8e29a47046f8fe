"""Ledger rows for tests that do not care what was asked."""

from typing import Any

from shared.ids import uuid7
from workers.ledger.book import LedgerRow


def a_row(call_id: str | None = None, **fields: Any) -> LedgerRow:
    """An open call, as it stands in Redis while it is made; `fields` say what is different."""
    given = {
        "job_id": uuid7(),
        "run": 1,
        "attempt": 1,
        "agent": "support",
        "conversation_id": "c1",
        "user_id": "u1",
        "domain": None,
        "feature": None,
        "provider": "openai",
        "model": "gpt-5.4-mini",
        "started_us": 1_795_246_200_000_000,
    }
    return LedgerRow(call_id=call_id or uuid7(), **given | fields)
