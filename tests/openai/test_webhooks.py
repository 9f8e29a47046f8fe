"""The events that OpenAI's SDK accepts as its own, of every way a response can end."""

import base64
import hashlib
import hmac
import json
import time

import pytest
from openai import OpenAI

from shared.jobs import JobError, JobRecord, JobState
from shared.responses import openai_event
from tests.ingress.harness import SECRET

KEY = base64.b64encode(hashlib.sha256(SECRET.encode()).digest()).decode()
CLIENT = OpenAI(api_key="sk-unused", webhook_secret=f"whsec_{KEY}")


def a_record(state: JobState, **fields: object) -> JobRecord:
    values = {
        "id": "0192f0c1-7a3c-7e11-9b1e-2f6d7c1a0b42",
        "tenant": "acme",
        "agent": "support",
        "conversation_id": "c",
        "user_id": None,
        "state": state,
        "created_us": 1_795_246_200_000_001,
        "finished_us": 1_795_246_207_900_000,
        **fields,
    }
    return JobRecord(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (a_record(JobState.SUCCEEDED, reply="yes"), "response.completed"),
        (a_record(JobState.SUCCEEDED, reply="y", incomplete="max_output_tokens"), "response.incomplete"),
        (a_record(JobState.DEAD, error=JobError("content_filter", "…")), "response.incomplete"),
        (a_record(JobState.DEAD, error=JobError("upstream_unavailable", "…")), "response.failed"),
        (a_record(JobState.EXPIRED, error=JobError("expired", "…")), "response.failed"),
        (a_record(JobState.REJECTED, error=JobError("tenant_disabled", "…")), "response.failed"),
        (a_record(JobState.CANCELLED, error=JobError("cancelled", "…")), "response.cancelled"),
        (a_record(JobState.MERGED, reply="yes", merged_into="x"), "response.completed"),
        (a_record(JobState.MERGED, error=JobError("cancelled", "…"), merged_into="x"), "response.cancelled"),
    ],
)
def test_a_signed_event_is_unwrapped(record: JobRecord, kind: str) -> None:
    payload = json.dumps(openai_event(record, event_id="evt_1"))
    now = str(int(time.time()))
    mac = hmac.digest(base64.b64decode(KEY), f"evt_1.{now}.{payload}".encode(), "sha256")
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
    event = CLIENT.webhooks.unwrap(payload, headers)
    assert (event.type, event.id, event.created_at) == (kind, "evt_1", 1_795_246_207)
    assert event.data.id == f"resp_{record.id}"  # type: ignore[union-attr]


def test_there_is_no_event_before_the_end() -> None:
    waiting = a_record(JobState.MERGED, merged_into="x", finished_us=None)
    with pytest.raises(ValueError, match="not over"):
        openai_event(waiting, event_id="evt_1")
