"""What goes wrong at a provider becomes one of three errors, says so in a sentence, and tells nothing it should not."""

from collections.abc import Awaitable, Callable

import pytest

from ops.stack.standin import Standin
from shared.errors import (
    AccountRejected,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from tests.models.conftest import KEY, MakeProvider, Provider, Scripted, answer, events

Behave = Callable[..., Awaitable[None]]


async def fault_of(provider: Provider, timeout_s: float = 60.0) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await provider.ask(timeout_s=timeout_s)
    error = raised.value
    assert error.provider == provider.adapter.provider
    assert str(error).startswith(error.provider)
    assert str(error).endswith(".")
    assert KEY not in str(error)
    assert "Ada" not in str(error)  # no word of the prompt
    return error


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 529])
async def test_trouble_of_the_provider_is_worth_a_retry(provider: Provider, behave: Behave, status: int) -> None:
    await behave(faults=[{"status": status, "retry_after_s": 2}])
    error = await fault_of(provider)
    assert isinstance(error, UpstreamUnavailable)
    assert (error.status, error.retry_after_s) == (status, 2.0)
    assert f"answered {status}" in str(error)
    assert "request req_" in str(error)
    assert (await provider.ask()).finish == "stop"  # nothing of it stays with the client


async def test_rate_limit_says_when_to_come_back(provider: Provider, behave: Behave) -> None:
    await behave(faults=[{"status": 429, "retry_after_s": 7}])
    error = await fault_of(provider)
    assert isinstance(error, UpstreamRateLimited)
    assert (error.status, error.retry_after_s) == (429, 7.0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_refused_request_is_final(provider: Provider, behave: Behave, status: int) -> None:
    await behave(faults=[{"status": status}])
    error = await fault_of(provider)
    assert isinstance(error, UpstreamRejected)
    assert isinstance(error, AccountRejected) is (status in (401, 403, 404))  # another provider may answer those
    assert not error.retryable
    assert error.status == status


@pytest.mark.parametrize("code", ["insufficient_quota", "enforced_spend_limit_reached", "ramp_limit_exceeded"])
async def test_spent_account_is_not_worth_a_retry(provider: Provider, behave: Behave, code: str) -> None:
    await behave(faults=[{"status": 429, "code": code, "retry_after_s": 1}])
    error = await fault_of(provider)
    assert isinstance(error, AccountRejected)
    assert code in str(error)


@pytest.mark.parametrize(
    ("status", "wish", "kind_of"), [(503, "false", UpstreamRejected), (400, "true", UpstreamError)]
)
async def test_provider_may_overrule_by_x_should_retry(
    provider: Provider, behave: Behave, status: int, wish: str, kind_of: type[UpstreamError]
) -> None:
    await behave(faults=[{"status": status, "headers": {"x-should-retry": wish}}])
    error = await fault_of(provider)
    assert isinstance(error, kind_of)
    assert error.retryable is (wish == "true")


@pytest.mark.parametrize("after_tokens", [0, 3])
async def test_stream_that_is_cut_is_worth_a_retry(provider: Provider, behave: Behave, after_tokens: int) -> None:
    await behave(faults=[{"cut_stream": True, "after_tokens": after_tokens}])
    assert isinstance(await fault_of(provider), UpstreamUnavailable)


async def test_stream_that_ends_politely_without_its_last_event_is_cut_short(
    make_provider: MakeProvider, kind: str, scripted: Scripted
) -> None:
    scripted.answers = [
        events(
            '{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"},'
            '"choices":[{"delta":{"content":"Hi"}}]}',
        )
    ]
    error = await fault_of(make_provider(kind, scripted.url))
    assert isinstance(error, UpstreamUnavailable)
    assert "ended its answer early" in str(error)


async def test_error_inside_a_stream_is_told_by_its_type(provider: Provider, behave: Behave) -> None:
    await behave(faults=["stream_error"])
    error = await fault_of(provider)
    assert isinstance(error, UpstreamUnavailable)
    assert "broke off its answer" in str(error)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ('{"type":"overloaded_error"}', UpstreamUnavailable),
        ('{"type":"api_error"}', UpstreamUnavailable),
        ('{"type":"rate_limit_error"}', UpstreamRateLimited),
        ('{"type":"rate_limit_error","details":{"error_code":"enforced_spend_limit_reached"}}', AccountRejected),
        ('{"type":"authentication_error"}', AccountRejected),
        ('{"type":"invalid_request_error","message":"secret words"}', UpstreamRejected),
        ('{"type":"tokens","code":"rate_limit_exceeded"}', UpstreamRateLimited),
        ('"just a string"', UpstreamUnavailable),
    ],
)
async def test_every_type_of_error_inside_a_stream(
    make_provider: MakeProvider, kind: str, scripted: Scripted, fault: str, expected: type[UpstreamError]
) -> None:
    scripted.answers = [events(f'{{"type":"error","error":{fault}}}')]
    error = await fault_of(make_provider(kind, scripted.url))
    assert type(error) is expected
    assert "secret words" not in str(error)


async def test_malformed_answer_is_worth_a_retry(provider: Provider, behave: Behave) -> None:
    await behave(faults=["malformed"])
    assert isinstance(await fault_of(provider), UpstreamUnavailable)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway, but 200</html>",
        b'{"id":"x","choices":[{"message":{"content":"not a stream"}}]}',
        b"data: {broken\n\n",
        b"data: []\n\n",
        b'data: {"type":5,"choices":7}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}],"type":"content_block_delta"}\n\n',
        b"data: null\n\n",
    ],
)
async def test_answer_that_cannot_be_read_never_leaks_a_library_error(
    make_provider: MakeProvider, kind: str, scripted: Scripted, body: bytes
) -> None:
    scripted.answers = [answer(body)]
    assert isinstance(await fault_of(make_provider(kind, scripted.url)), UpstreamUnavailable)


@pytest.mark.parametrize("head", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: nine\r\n\r\n", b""])
async def test_answer_that_is_not_http_is_worth_a_retry(
    make_provider: MakeProvider, kind: str, scripted: Scripted, head: bytes
) -> None:
    scripted.answers = [[head]]
    error = await fault_of(make_provider(kind, scripted.url))
    assert isinstance(error, UpstreamUnavailable)
    assert "broke the connection" in str(error)


async def test_status_error_without_json_is_translated(
    make_provider: MakeProvider, kind: str, scripted: Scripted
) -> None:
    scripted.answers = [answer(b"upstream connect error", status="503 Service Unavailable")]
    error = await fault_of(make_provider(kind, scripted.url))
    assert (type(error), str(error).split(" ")[2]) == (UpstreamUnavailable, "503")


async def test_tool_call_nobody_offered_is_worth_a_retry(
    make_provider: MakeProvider, kind: str, scripted: Scripted
) -> None:
    ends = {
        "openai": ['{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}', "[DONE]"],
        "anthropic": ['{"type":"message_delta","delta":{"stop_reason":"tool_use"}}', '{"type":"message_stop"}'],
    }
    scripted.answers = [events(*ends[kind])]
    assert "not asked for" in str(await fault_of(make_provider(kind, scripted.url)))


async def test_unreachable_provider_is_worth_a_retry(
    make_provider: MakeProvider, kind: str, unused_tcp_port: int
) -> None:
    error = await fault_of(make_provider(kind, f"http://127.0.0.1:{unused_tcp_port}"))
    assert isinstance(error, UpstreamUnavailable)
    assert "could not be reached" in str(error)


async def test_whole_call_is_bounded(provider: Provider, behave: Behave) -> None:
    await behave(tokens_per_s=10, output_tokens=1_000)
    error = await fault_of(provider, timeout_s=0.3)
    assert isinstance(error, UpstreamUnavailable)
    assert "did not finish in time" in str(error)


@pytest.mark.parametrize("fault", ["hang", "stall_stream"])
async def test_silence_is_bounded(
    kind: str, standin: Standin, make_provider: MakeProvider, behave: Behave, fault: str
) -> None:
    await behave(faults=[fault])
    error = await fault_of(make_provider(kind, standin.url, idle_timeout_s=0.3))
    assert isinstance(error, UpstreamUnavailable)
    assert "sent nothing for too long" in str(error)


async def test_pauses_shorter_than_the_idle_timeout_do_not_end_a_call(
    kind: str, standin: Standin, make_provider: MakeProvider, behave: Behave
) -> None:
    await behave(tokens_per_s=4, output_tokens=8)
    assert (await make_provider(kind, standin.url, idle_timeout_s=1.5).ask()).usage.output_tokens == 8


async def test_the_cause_is_kept(provider: Provider, behave: Behave) -> None:
    await behave(faults=[{"status": 500}])
    error = await fault_of(provider)
    assert type(error.__cause__).__name__ == "InternalServerError"
