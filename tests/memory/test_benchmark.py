"""The benchmarks run, on a set of a few lines: what they read, how they count, and that what was said is found."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.memory import judge, locomo, store
from benchmarks.memory.locomo import Question
from benchmarks.memory.quality import measure
from benchmarks.memory.scale import Size, fill_and_ask
from benchmarks.memory.store import Line
from tests.memory.conftest import Memory

SET = [
    {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bob",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "I adopted a dog, Rex."},
                {"speaker": "Bob", "dia_id": "D1:2", "text": "Lovely!", "blip_caption": "a brown dog"},
            ],
            "session_2_date_time": "9:00 am on 9 June, 2023",
            "session_2": [{"speaker": "Bob", "dia_id": "D2:1", "text": "I play the piano now."}],
        },
        "qa": [
            {"question": "What is the name of Ann's dog?", "answer": "Rex", "evidence": ["D1:1; D1:2"], "category": 4},
            {"question": "Which instrument does Bob play?", "answer": "piano", "evidence": ["D:2:01"], "category": 1},
            {"question": "Who knows?", "answer": "nobody", "evidence": [], "category": 3},
        ],
    }
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "set.json"
    path.write_text(json.dumps(SET))
    return path


async def embed(texts: Sequence[str], *, query: bool = False) -> list[list[float]]:
    """Enough for a test: which letters a text has."""
    return [[1.0 + text.lower().count(letter) for letter in "abcdefghijklmnop"] for text in texts]


def test_a_set_is_read_with_its_ids_made_equal(data: Path) -> None:
    (sample,) = locomo.read(data)

    assert [turn.id for turn in sample.turns] == ["D1:1", "D1:2", "D2:1"]
    assert sample.turns[0].said_at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert sample.turns[1].text == "Lovely! [shares a photo: a brown dog]"
    assert [(question.evidence, question.category) for question in sample.questions] == [
        ({"D1:1", "D1:2"}, 4),
        ({"D2:1"}, 1),
    ]


def test_marks_count_the_evidence_that_was_found_and_what_it_takes() -> None:
    question = Question("?", frozenset({"a", "b"}), 1)
    sizes = {"a": 400, "b": 300, "x": 150, **{f"y{n}": 1 for n in range(9)}}

    found = judge.marks(question, ["x", "a", *(f"y{n}" for n in range(9)), "b"], sizes)
    assert found == judge.Marks(at_5=0.5, at_10=0.5, mrr=0.5, in_500=0.5, in_1000=1.0)
    assert judge.marks(question, ["x"], sizes) == judge.Marks(0, 0, 0, 0, 0)
    assert judge.mean([found, judge.Marks(0, 0, 0, 0, 0)]).at_5 == 0.25


async def test_what_was_said_is_found_through_the_products_own_way(data: Path) -> None:
    said: list[str] = []
    results = await measure(locomo.read(data), embed, dimensions=16, tuned_on=1, progress=said.append)

    assert said == ["conv-1"]
    assert set(results.rows) == {
        "full text alone (any word, ts_rank)", "vectors alone (cosine)", "recall by words", "recall"
    }  # fmt: skip
    for method in ("recall", "recall by words"):
        assert [(category, held_out, marks.at_5) for category, held_out, marks in results.rows[method]] == [
            (4, False, 1.0),
            (1, False, 1.0),
        ]


async def test_who_said_it_has_the_name_that_the_set_has(memory: Memory) -> None:
    """Questions name people: under another name half of them would not be found."""
    now = datetime.now(UTC)
    lines = [
        Line("session-1", 1, "user", "Ann", "I adopted a dog.", now),
        Line("session-1", 2, "assistant", "Bob", "Lovely!", now),
    ]
    await store.say(memory.ops, "conv-1", "user", "Ann", lines)
    await store.write_all(memory.ops)
    assert [piece["text"] for piece in await memory.items()] == ["Ann: I adopted a dog.", "Bob: Lovely!"]


async def test_the_scale_of_a_few_memories_is_measured_and_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LARGE", 80), ("WRITTEN", 20), ("QUESTIONS", 4), ("COMPARED", 2), ("POOL", 300)):
        monkeypatch.setattr(f"benchmarks.memory.scale.{name}", value)
    rows = dict(await fill_and_ask(Size(120, 3), lambda _: None))

    assert rows["memory_items"].startswith("250 rows")
    exact = [value for name, value in rows.items() if name.endswith("exact ranking")]
    assert exact == ["1.00", "1.00"]
