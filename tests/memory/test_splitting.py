"""A message in parts: whatever it is made of, nothing is lost between them and none is too long."""

import pytest

from workers.ledger import tokens
from workers.memory.splitting import MOST_PARTS, PART_TOKENS, parts

TEXTS = {
    "short": "Where is my order?",
    "paragraphs": "\n\n".join(f"Paragraph {n}. " + "It says something about parcels. " * 9 for n in range(12)),
    "one long line": "and then we went on " * 300,
    "unbroken": "x" * 5_000,
    "base64": "QmFzZTY0IGlzIG5vdCBwcm9zZQ" * 150,
    "right to left": "مرحبا بالعالم، كيف حالك اليوم؟ " * 120,
    "chinese": "我昨天去了东京，看到了很多有趣的东西。" * 80,
    "emoji": "😀🚀" * 400,
    "control characters": "\x01\x02\x7f" * 500,
}


@pytest.mark.parametrize("name", TEXTS)
def test_parts_are_short_and_leave_only_blanks_out(name: str) -> None:
    body, place = TEXTS[name], 0

    for start, end, count in parts(body):
        assert not body[place:start].strip()
        assert body[start:end] == body[start:end].strip()
        assert 1 <= tokens.count(body[start:end]) <= PART_TOKENS + 2, "a cut may add a token"
        assert count <= PART_TOKENS
        place = end
    assert not body[place:].strip()


def test_a_short_message_is_one_part() -> None:
    assert [span[:2] for span in parts("  Hello there.\n")] == [(2, 14)]


@pytest.mark.parametrize("body", ["", " \n\t ", "\u2003\u3000"])
def test_blanks_have_no_parts(body: str) -> None:
    assert parts(body) == []


def test_a_cut_is_made_between_sentences_where_there_are_some() -> None:
    body = "The parcel left the warehouse in the evening. " * 40

    assert all(body[start:end].endswith("evening.") for start, end, _ in parts(body))


def test_an_enormous_message_has_a_bounded_number_of_parts() -> None:
    assert len(parts("word " * 40_000)) == MOST_PARTS
