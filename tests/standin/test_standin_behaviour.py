"""Rules: what is refused and why, and how replies and lengths are made. Few of these need the server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.standin import behaviour
from ops.standin.answer import compose
from ops.standin.ask import Ask, Said
from ops.standin.behaviour import Rule
from ops.standin.tokenizer import count, split
from shared.errors import InvalidRequest
from tests.standin.conftest import Control


def ask(*texts: str, max_tokens: int | None = None) -> Ask:
    said = tuple(Said("user", text) for text in texts)
    return Ask(model="m", said=said, input_tokens=7, system="Be brief.", max_tokens=max_tokens)


def reply(question: Ask, rule: Rule) -> str:
    return "".join(part.text for part in compose(question, rule, None).parts)


def test_every_unknown_field_is_named(control: Control) -> None:
    answer = control.http.post(
        "/_behaviour", json=[{}, {"latency": 1, "faults": ["explode", {"status": 429, "time": 2}]}]
    )
    assert answer.status_code == 422
    assert answer.json()["faults"] == [
        {"field": "[1].latency", "message": "unknown field"},
        {"field": "[1].faults[0].explode", "message": "unknown field"},
        {"field": "[1].faults[1].time", "message": "unknown field"},
    ]


def test_a_refused_behaviour_leaves_the_old_one_in_force(control: Control) -> None:
    control.behave({"reply": "old"})
    control.http.post("/_behaviour", json={"unknown": 1})
    assert control.http.get("/_behaviour").json() == [{"reply": "old"}]
    control.http.delete("/_behaviour")
    assert control.http.get("/_behaviour").json() == []


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"{", 400, "not JSON"),
        (b"3", 422, "Expected `object`"),
        (b'{"latency_ms": -1}', 422, "latency_ms"),
        (b'{"tokens_per_s": 0}', 422, "tokens_per_s"),
        (b'{"faults": [{"status": 200}]}', 422, "status"),
        (b'{"faults": ["status"]}', 422, "status"),
        (b'{"faults": [{"times": 2}]}', 422, "exactly one"),
        (b'{"faults": [{"hang": true, "status": 500}]}', 422, "exactly one"),
        (b'{"tool_calls": [{"arguments": {}}]}', 422, "name"),
    ],
)
def test_a_wrong_value_is_named(body: bytes, status: int, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named) as caught:
        behaviour.read(body)
    assert caught.value.status == status


def test_the_first_rule_that_matches_decides_and_its_faults_are_its_own() -> None:
    rules = behaviour.read(b'[{"match":"a","faults":["hang"]},{"match":"b","reply":"B"}]')
    decided = [rules.decide(ask(text)) for text in ("b", "a b", "a b", "c")]
    assert [rule.reply for rule, _ in decided] == ["B", None, None, None]
    assert [fault and fault.kind for _, fault in decided] == [None, "hang", None, None]


def test_a_match_looks_at_the_last_user_message_only() -> None:
    rules = behaviour.read(b'{"match":"old","reply":"found"}')
    assert rules.decide(ask("old", "new"))[0].reply is None
    assert rules.decide(ask("new", "old"))[0].reply == "found"


def test_placeholders_are_filled_once() -> None:
    question = ask("{count}", "say {system}")
    assert reply(question, Rule(reply="{last} {previous} {count} {system} {model} {x}")) == (
        "say {system} {count} 2 Be brief. m {x}"
    )


TEXTS = st.text(max_size=200) | st.text(alphabet=" \t\r\n\u00a0ab.,/é1👩\u200d", max_size=40)


@given(TEXTS, st.integers(0, 60))
def test_a_reply_has_exactly_the_tokens_asked_for(text: str, size: int) -> None:
    answer = compose(ask(text), Rule(reply="{last}", output_tokens=size), None)
    assert answer.usage.output_tokens == size
    assert answer.finish == "stop"


@given(TEXTS, st.integers(1, 60))
def test_a_reply_is_never_longer_than_its_bound(text: str, bound: int) -> None:
    rule = Rule(reply="{last}")
    answer = compose(ask(text, max_tokens=bound), rule, None)
    assert answer.usage.output_tokens == min(bound, count(text))
    assert (answer.finish == "length") == (count(text) > bound)
    assert text.startswith(reply(ask(text, max_tokens=bound), rule))


@given(TEXTS)
def test_pieces_make_up_the_text_and_its_tokens(text: str) -> None:
    pieces = split(text)
    assert "".join(piece.text for piece in pieces) == text
    assert sum(piece.tokens for piece in pieces) == count(text)
