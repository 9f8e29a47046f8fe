"""Which prompts are the same question: whatever decides an answer tells them apart, and nothing personal is one."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agents.api import Agent, Message, Prompt
from workers.cache.question import Question, normalised, question_of


class Shop(Agent):
    id, label = "shop", "Shop"
    system_prompt = "You sell shoes."
    models = ("openai:gpt-5.4-mini", "anthropic:claude-haiku-4-5")


def plain(agent: Agent, text: str, max_tokens: int = 500) -> Prompt:
    return Prompt(agent.system_prompt, (Message("user", text),), max_tokens, agent.temperature)


def asked(
    text: str = "Do you ship?", *, tenant: str = "acme", deployment: str = "d", **changes: Any
) -> Question | None:
    """What an agent with these `changes` asks."""
    agent = copy.copy(Shop())
    max_tokens = changes.pop("max_tokens", 500)
    vars(agent).update(changes)
    prompt = plain(agent, text, max_tokens)
    return question_of(agent, prompt, text=text, deployment=deployment, tenant=tenant, ttl_s=300)


OTHERWISE: list[dict[str, Any]] = [
    {"text": "Do you ship!"},
    {"tenant": "acme2"},
    {"deployment": "e"},
    {"id": "shop2"},
    {"system_prompt": "You sell shoes. "},
    {"models": ("openai:gpt-5.4-mini",)},
    {"models": ("anthropic:claude-haiku-4-5", "openai:gpt-5.4-mini")},
    {"max_tokens": 501},
    {"temperature": 0.0},
    {"temperature": 1.0},
]


@pytest.mark.parametrize("otherwise", OTHERWISE, ids=str)
def test_what_decides_an_answer_tells_questions_apart(otherwise: dict[str, Any]) -> None:
    usual, other = asked(), asked(**otherwise)
    assert usual is not None
    assert other is not None
    assert usual.digest != other.digest
    assert asked() == usual


PARTS = st.fixed_dictionaries(
    {
        "text": st.text(min_size=1, max_size=8),
        "tenant": st.text("ab:", min_size=1, max_size=4),
        "deployment": st.sampled_from(["d", "da", ""]),
        "id": st.text('ab:"', min_size=1, max_size=4),
        "system_prompt": st.text('ab",\\[]', max_size=6),
        "models": st.lists(st.text('a:,"', max_size=3), max_size=3).map(tuple),
        "max_tokens": st.integers(1, 99),
        "temperature": st.none() | st.floats(0, 2),
    }
)


@given(PARTS, PARTS)
def test_no_two_questions_have_one_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    assume({**one, "text": normalised(one["text"])} != {**other, "text": normalised(other["text"])})
    first, second = asked(**one), asked(**other)
    assert first is not None
    assert second is not None
    assert first.digest != second.digest


@given(PARTS, st.sampled_from(["id", "system_prompt", "deployment", "tenant"]), st.integers(0, 6))
def test_moving_letters_from_one_part_to_the_next_makes_another_question(
    parts: dict[str, Any], name: str, place: int
) -> None:
    names = ["deployment", "tenant", "id", "system_prompt", "text"]
    following = names[names.index(name) + 1]
    moved = {**parts, name: parts[name][:place], following: parts[name][place:] + parts[following]}
    assume(moved[name] != parts[name])
    one, other = asked(**parts), asked(**moved)
    assert one is not None
    assert other is not None
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("  hello  ", "hello"),
        ("hello\n", "hello"),
        ("where  is\tmy\u00a0order", "where is my order"),
        ("cafe\u0301", "caf\u00e9"),
        ("two\r\nlines", "two\nlines"),
        ("two  \nlines", "two\nlines"),
    ],
)
def test_what_cannot_mean_anything_is_no_difference(said: str, means: str) -> None:
    assert asked(said) == asked(means)
    assert normalised(said) == means


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is Polish hard?", "Is polish hard?"),
        ("What is 5²?", "What is 52?"),
        ("Let's eat, Grandpa", "Let's eat Grandpa"),
        ("You ship?", "You ship."),
        ("for x in y:\n    a()\n    b()", "for x in y:\n    a()\nb()"),
        ("for x in y:\n    a()", "for x in y:\na()"),
        ('How long is "a  b"?', 'How long is "a b"?'),
        ("What does `a  b` do?", "What does `a b` do?"),
        ("one\ntwo", "one two"),
        ("👩\u200d🚀?", "👩🚀?"),
    ],
)
def test_what_may_mean_something_stays(one: str, other: str) -> None:
    first, second = asked(one), asked(other)
    assert first is not None
    assert second is not None
    assert first.digest != second.digest


@given(st.text(max_size=60))
def test_what_was_normalised_stays_as_it_is(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


def question(prompt: Prompt, agent: Agent | None = None, *, text: str = "hi", ttl_s: int = 300) -> Question | None:
    return question_of(agent or Shop(), prompt, text=text, deployment="d", tenant="acme", ttl_s=ttl_s)


def test_a_prompt_with_anything_else_in_it_is_nobody_elses_question() -> None:
    bare = plain(Shop(), "hi")
    assert question(bare) is not None
    said = (Message("user", "I am Ada"), Message("assistant", "Hello Ada"))
    for personal in (
        replace(bare, messages=(*said, *bare.messages)),
        replace(bare, messages=(Message("assistant", "Hello Ada"), *bare.messages)),
        replace(bare, system="You sell shoes. The customer is Ada."),
        replace(bare, messages=(Message("user", "hi (from Ada)"),)),
        replace(bare, messages=(Message("assistant", "hi"),)),
        replace(bare, messages=()),
    ):
        assert question(personal) is None, personal


def test_an_agent_or_a_tenant_can_want_no_cache() -> None:
    class Dice(Shop):
        cache = False

    assert question(plain(Dice(), "hi"), Dice()) is None
    assert question(plain(Shop(), "hi"), ttl_s=0) is None
