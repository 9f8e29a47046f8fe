"""The W3C context that travels with a job, without any Sentry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry import tracing

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("flags", ["00", "01", "ff"])
def test_a_callers_trace_is_continued_and_recording_stays_our_decision(flags: str) -> None:
    trace = tracing.of_request(f"00-{TRACE}-{PARENT}-{flags}")
    assert (trace.trace_id, trace.span_id, trace.sampled) == (TRACE, PARENT, False)
    assert trace.headers() == {"traceparent": f"00-{TRACE}-{PARENT}-00"}


def test_a_later_version_of_the_header_is_read_as_far_as_we_know_it() -> None:
    assert tracing.of_request(f"01-{TRACE}-{PARENT}-01-more").trace_id == TRACE


@pytest.mark.parametrize(
    "header",
    [
        None, "", "hello", f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-01-more", f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01",
    ],
)  # fmt: skip
def test_anything_else_starts_a_new_trace(header: str | None) -> None:
    trace, other = tracing.of_request(header), tracing.of_request(header)
    assert trace.trace_id not in (TRACE, other.trace_id)
    assert tracing.of_job(trace.headers()) is not None


@given(st.text(max_size=80))
def test_no_header_a_caller_can_send_breaks_a_request(header: str) -> None:
    headers = tracing.of_request(header).headers()
    assert tracing.trace_id(headers) is not None


def test_what_another_writer_put_into_a_payload_is_no_trace() -> None:
    assert tracing.of_job({}) is None
    assert tracing.of_job({"traceparent": "x"}) is None
    assert tracing.trace_id({"traceparent": "x"}) is None


def test_without_sentry_spans_are_nothing_and_pass_the_trace_on() -> None:
    trace = tracing.of_request(None)
    with tracing.root(trace, "http.server", "POST") as root, tracing.span("db.query", "x") as span:
        root.name("POST /", status=202)
        root.past("queue.wait", "default", seconds=1.0)
        span.tell(tokens=1)
        assert root.onward() == trace
