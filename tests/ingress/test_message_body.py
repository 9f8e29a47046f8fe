"""The parser of bodies: whatever is sent, the answer is a valid body or a refusal that names its faults."""

import json
import sys
from typing import Any
from unicodedata import category

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingress.body import MessageBody, checked_message, parse_message
from ingress.message import ChatMessage, plain_message
from shared.config import Settings
from shared.errors import InvalidRequest
from shared.ids import uuid7
from shared.wire import TurnPayload, decode_turn, encode_turn

SETTINGS = Settings.read()

text = st.text(max_size=20) | st.sampled_from(["", " ", "\0", "\ud800", "x" * 600, "é" * 70])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
names = st.sampled_from([*MessageBody.model_fields, "other"])
bodies = st.dictionaries(names, anything, max_size=9)
likely = st.fixed_dictionaries(
    {"message": st.text(min_size=1, max_size=30)},
    optional={
        "user_id": st.text(min_size=1, max_size=10),
        "metadata": st.dictionaries(st.text(min_size=1, max_size=5), scalars, max_size=20),
        "ttl_s": st.integers(-1, 90_000),
        "domain": st.none() | st.text(max_size=5),
    },
)


def outcome(raw: bytes) -> ChatMessage | InvalidRequest:
    try:
        return parse_message(raw, SETTINGS)
    except InvalidRequest as error:
        return error


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200) | (bodies | likely | anything).map(lambda body: json.dumps(body).encode()))
def test_any_bytes_are_a_valid_body_or_a_refusal(raw: bytes) -> None:
    found = outcome(raw)
    if isinstance(found, InvalidRequest):
        assert found.status in {400, 422}
        assert (found.status == 422) == bool(found.faults)
        msgspec.json.encode(found.faults)
        return
    sent = TurnPayload(
        job_id=uuid7(), tenant="a", agent="x", conversation_id="c", message=found.message, metadata=found.metadata or {}
    )
    decoded = decode_turn(encode_turn(sent, enqueued_ms=0))
    assert decoded.message == found.message
    assert decoded.metadata == sent.metadata
    assert "\0" not in found.message
    assert found.canonical() == outcome_of(json.loads(raw)).canonical()


def outcome_of(body: Any) -> ChatMessage:
    found = outcome(json.dumps(body, indent=2).encode())
    assert isinstance(found, ChatMessage)
    return found


def faults_of_valid(body: dict[str, Any]) -> dict[str, str]:
    """No fault is fine too."""
    found = outcome(json.dumps({"message": "hello", **body}).encode())
    return {fault["field"]: "" for fault in found.faults} if isinstance(found, InvalidRequest) else {}


def faults_of(body: dict[str, Any]) -> dict[str, str]:
    found = outcome(json.dumps({"message": "hello", **body}).encode())
    assert isinstance(found, InvalidRequest), found
    return {fault["field"]: fault["message"] for fault in found.faults}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"message": 7}, "message"),
        ({"message": ""}, "message"),
        ({"message": " \n\t"}, "message"),
        ({"message": "a\0b"}, "message"),
        ({"message": "\ud83d"}, "message"),
        ({"message": "x" * 32_001}, "message"),
        ({"conversation_id": ""}, "conversation_id"),
        ({"conversation_id": "x" * 129}, "conversation_id"),
        ({"conversation_id": "a\nb"}, "conversation_id"),
        ({"user_id": 1}, "user_id"),
        ({"user_id": "\u200b"}, "user_id"),
        ({"callback_url": "example.com/x"}, "callback_url"),
        ({"callback_url": "javascript:alert(1)"}, "callback_url"),
        ({"callback_url": "https:///path"}, "callback_url"),
        ({"callback_url": "https://host:port/"}, "callback_url"),
        ({"callback_url": "https://host/a b"}, "callback_url"),
        ({"callback_url": "http://127.0.0.1:8080/hook"}, "callback_url"),
        ({"callback_url": "http://169.254.169.254/latest/meta-data"}, "callback_url"),
        ({"callback_url": "https://redis.internal/"}, "callback_url"),
        ({"callback_url": "https://h/" + "x" * 2048}, "callback_url"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {str(n): n for n in range(17)}}, "metadata"),
        ({"metadata": {str(n): "x" * 500 for n in range(9)}}, "metadata"),
        ({"metadata": {"": 1}}, "metadata/"),
        ({"metadata": {"k" * 65: 1}}, "metadata/" + "k" * 65),
        ({"metadata": {"a": {}}}, "metadata/a"),
        ({"metadata": {"a": 2**53}}, "metadata/a"),
        ({"metadata": {"a": 1e16}}, "metadata/a"),
        ({"metadata": {"a": "\0"}}, "metadata/a"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": 86_401}, "ttl_s"),
        ({"ttl_s": 60.5}, "ttl_s"),
        ({"ttl_s": 1e300}, "ttl_s"),
        ({"ttl_s": "60"}, "ttl_s"),
        ({"ttl_s": True}, "ttl_s"),
        ({"domain": "x" * 65}, "domain"),
        ({"feature": ""}, "feature"),
        ({"extra": 1}, "extra"),
    ],
    ids=str,
)
def test_each_fault_is_named_by_its_field(body: dict[str, Any], field: str) -> None:
    assert list(faults_of(body)) == [field]


def test_too_many_pairs_and_a_wrong_pair_are_reported_together() -> None:
    fields = faults_of({"metadata": {**{str(n): n for n in range(17)}, "a": []}})
    assert set(fields) == {"metadata", "metadata/a"}


def test_the_limits_themselves_are_allowed() -> None:
    body = {
        "message": "x" * 32_000,
        "conversation_id": "x" * 128,
        "callback_url": "http://example.com:8080/" + "x" * 2024,
        "metadata": {"k" * 64: "v" * 512, **{str(n): n for n in range(15)}},
        "ttl_s": 86_400,
        "domain": "x" * 64,
    }
    assert outcome_of(body).message == body["message"]


def test_ids_have_no_character_that_cannot_be_seen_whatever_python_knows_of_unicode() -> None:
    hidden = [chr(n) for n in range(sys.maxunicode + 1) if category(chr(n)) in {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}]
    hidden.remove(" ")
    refused = [character for character in hidden if "user_id" in faults_of_valid({"user_id": f"a{character}"})]
    assert refused == hidden
    assert faults_of_valid({"user_id": "Zoë 🦑 \U0001fae9 \U0001faea"}) == {}


def test_a_whole_number_may_be_written_with_a_fraction() -> None:
    assert (
        outcome_of({"message": "a", "ttl_s": 60.0}).canonical() == outcome_of({"message": "a", "ttl_s": 60}).canonical()
    )


def test_null_means_absent() -> None:
    names = set(MessageBody.model_fields) - {"message"}
    assert outcome_of({"message": "a", **dict.fromkeys(names)}).canonical() == outcome_of({"message": "a"}).canonical()


def test_values_are_not_echoed_back() -> None:
    assert "sensitive" not in str(faults_of({"message": ["sensitive"], "user_id": "sensitive\n", "ttl_s": "sensitive"}))


plain_names = st.sampled_from(
    ["message", "user_id", "conversation_id", "ttl_s", "domain", "feature", "policy", "metadata"]
)
plain_values = (
    st.text(alphabet=st.sampled_from('aé\u2028 \t\0\x7f\u200b\ud800\\"/💬'), max_size=6)
    | st.sampled_from(["x" * 64, "x" * 65, "x" * 128, "x" * 129, "x" * 20_001, "queue", "merge", "later", ""])
    | st.integers(-2, 3)
    | st.sampled_from([86_400, 86_401, 2**64, 60.0, True, None])
    | st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(), max_size=2)
)


@st.composite
def written_bodies(draw: st.DrawFn) -> bytes:
    """Objects as a careless writer may write them: names twice, raw and escaped characters, odd spacing and bytes."""
    members = draw(st.lists(st.tuples(plain_names, plain_values), max_size=5))
    members.insert(draw(st.integers(0, len(members))), ("message", draw(st.text("ab \n💬", max_size=4))))
    escaped, space = draw(st.booleans()), draw(st.sampled_from(["", " ", "\t\r\n", "\u00a0"]))
    parts = [f"{json.dumps(name)}{space}:{json.dumps(value, ensure_ascii=escaped)}" for name, value in members]
    text = f"{space}{{{space}{f'{space},{space}'.join(parts)}{space}}}{space}"
    prefix = draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b"\xff", b"[", b"\0"]))
    raw = prefix + text.encode("utf-8", "surrogatepass")
    cut = draw(st.integers(0, 200))
    return raw if cut > 20 else raw[:cut] + draw(st.sampled_from([b"", b"\xff", b'"', b"\x01", b","])) + raw[cut:]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(written_bodies())
@example(b'{"message":"a","message":"b"}')
@example(b'{"message":"a","user_id":"u","user_id":null}')
@example(b'{"message":"a","user_id":null,"user_id":"u"}')
@example(b'{"message":"a","ttl_s":60,"ttl_s":61}')
@example(b'{"message":"a","ttl_s":60.0}')
@example(b'{"message":"\xed\xa0\x80"}')
def test_the_short_way_takes_no_body_that_the_long_one_refuses_or_reads_differently(raw: bytes) -> None:
    short = plain_message(raw, SETTINGS)
    if short is not None:
        assert short == checked_message(raw, SETTINGS)
        assert short.canonical() == checked_message(raw, SETTINGS).canonical()


EVERYTHING_PLAIN = {
    "message": "Größe? 💬",
    "conversation_id": "c",
    "user_id": "u",
    "ttl_s": 60,
    "domain": "d",
    "feature": "f",
    "policy": "merge",
}


@pytest.mark.parametrize("name", EVERYTHING_PLAIN)
def test_a_body_without_anything_unusual_goes_the_short_way(name: str) -> None:
    body = {"message": "m", name: EVERYTHING_PLAIN[name]}
    for said in (body, EVERYTHING_PLAIN):
        raw = json.dumps(said, ensure_ascii=False).encode()
        assert plain_message(raw, SETTINGS) == checked_message(raw, SETTINGS) is not None


def test_the_canonical_form_is_the_one_whose_digests_are_kept_already() -> None:
    body = {"user_id": "é", "message": "a", "ttl_s": 60, "domain": None, "metadata": {"b": None, "a": 1.0}}
    kept = b'{"message":"a","metadata":{"a":1.0,"b":null},"ttl_s":60,"user_id":"\\u00e9"}'
    assert outcome_of(body).canonical() == kept
