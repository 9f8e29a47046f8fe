"""Counting offline: the shipped ranks are the real ones, no text breaks it, Claude's rule bounds its counts."""

import hashlib
import shutil
import socket
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import tiktoken_ext.openai_public
from hypothesis import given
from hypothesis import strategies as st

from agents.api import Message, Prompt
from shared.errors import ConfigError
from workers.ledger import tokens

PROMPT = Prompt("You are brief.", (Message("user", "Hello there"),), 100)


@pytest.mark.parametrize("name", sorted(tokens.SHIPPED))
def test_shipped_ranks_are_the_files_tiktoken_would_download(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def record(url: str, expected_hash: str) -> dict[bytes, int]:
        asked.append((url, expected_hash))
        return {}

    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", record)
    original: dict[str, Any] = tiktoken_ext.openai_public.ENCODING_CONSTRUCTORS[name]()
    [(url, sha256)] = asked
    shipped = tokens.SHIPPED[name]

    assert shipped.ranks_file == hashlib.sha1(url.encode()).hexdigest()  # noqa: S324 - tiktoken's own file name
    assert shipped.ranks_sha256 == sha256
    assert hashlib.sha256((tokens.RANKS / shipped.ranks_file).read_bytes()).hexdigest() == sha256
    assert (shipped.pattern, shipped.special_tokens) == (original["pat_str"], original["special_tokens"])


def test_counts_match_published_examples() -> None:
    """From OpenAI's cookbook page on counting tokens."""
    assert tokens.count("antidisestablishmentarianism", "gpt-4") == 6
    assert tokens.count("antidisestablishmentarianism", "gpt-4o-mini") == 6
    assert tokens.count("2 + 2 = 4", "gpt-4") == 7
    assert tokens.count("お誕生日おめでとう", "gpt-4") == 9
    assert tokens.count("お誕生日おめでとう", "gpt-4o-mini") == 8


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-5.4-mini", "o200k_base"),
        ("gpt-6-luna", "o200k_base"),
        ("claude-haiku-4-5", "o200k_base"),
        ("gpt-oss-20b", "o200k_base"),
        ("davinci", "o200k_base"),
        ("some-local-model", "o200k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
    ],
)
def test_every_model_name_has_a_shipped_encoding(model: str, encoding: str) -> None:
    assert tokens.encoding_name(model) == encoding


def test_loading_and_counting_never_touch_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    tokens.encoding.cache_clear()
    tokens.load()
    assert tokens.count("hello world") == 2


def test_altered_rank_file_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped, name, usual = tokens.RANKS, *(tokens.SHIPPED[each].ranks_file for each in ("cl100k_base", "o200k_base"))
    shutil.copy(shipped / name, tmp_path)
    with (tmp_path / name).open("ab") as ranks:
        ranks.write(b"eA== 999999\n")
    monkeypatch.setattr(tokens, "RANKS", tmp_path)
    tokens.encoding.cache_clear()
    with pytest.raises(ConfigError, match=name):
        tokens.encoding("cl100k_base")
    with pytest.raises(ConfigError, match="cannot be read"):
        tokens.encoding("o200k_base")
    shutil.copy(shipped / usual, tmp_path)
    with pytest.raises(ConfigError, match=name):  # at the start, whether it is needed by then or not
        tokens.load()
    monkeypatch.undo()
    tokens.load()


def test_what_no_model_needs_is_not_built_at_the_start() -> None:
    tokens.encoding.cache_clear()
    tokens.load("gpt-5.4-mini", "claude-haiku-4-5")
    assert tokens.encoding.cache_info().currsize == 1
    tokens.load("gpt-5.4-mini", "text-embedding-3-small")
    assert tokens.encoding.cache_info().currsize == 2


def test_an_encoding_keeps_no_second_copy_of_its_ranks() -> None:
    """Every worker and delivery process holds both encodings for as long as it runs."""
    tokens.encoding.cache_clear()
    tracemalloc.start()
    try:
        kept = tokens.encoding("cl100k_base")
        held_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.decode(kept.encode_ordinary("Grüße, 世界 🙂")) == "Grüße, 世界 🙂"
    assert peak_bytes > 5_000_000
    assert held_bytes < 1_000_000


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_any_text_can_be_counted(text: str) -> None:
    assert (tokens.count(text) > 0) == bool(text)


def test_special_tokens_in_a_text_are_plain_text() -> None:
    assert tokens.count("<|endoftext|>") == 7


@pytest.mark.parametrize("unit", ["a", " ", "A", "!", "\n", "你", "😀", "\u0301", "aB "])
def test_a_long_message_of_one_character_is_counted_quickly(unit: str) -> None:
    """Ten times the text is ten times the work, not a hundred times: 5 ms for the longest message, on an idle core."""

    def cpu_s(characters: int) -> float:
        text = (unit * characters)[:characters]
        return min(_cpu_s(text) for _ in range(3))

    assert cpu_s(80_000) < 40 * cpu_s(8_000)


def _cpu_s(text: str) -> float:
    """What counting costs this process, whatever others do meanwhile."""
    started_s = time.process_time()
    assert tokens.count(text) > 0
    return time.process_time() - started_s


def test_text_beyond_the_regex_engine_is_counted_in_slices() -> None:
    """tiktoken panics on it, with an exception that is no `Exception`."""
    text = " " * 1_000_000
    whole = tokens.count(" " * 100_000)
    assert 10 * whole <= tokens.count(text) <= 10 * whole + 20


def test_cached_and_uncached_counts_agree() -> None:
    text = "The quick brown fox. " * 50
    expected = len(tokens.encoding("o200k_base").encode_ordinary(text))
    assert [tokens.count(text), tokens.count(text)] == [expected, expected]


def test_prompt_framing_is_four_tokens_a_message_and_three_a_prompt() -> None:
    texts = tokens.count(PROMPT.system) + tokens.count("Hello there")
    assert tokens.count_prompt(PROMPT, "gpt-5.4-mini") == texts + 2 * 4 + 3
    without_system = Prompt("", PROMPT.messages, 100)
    assert tokens.count_prompt(without_system) == tokens.count("Hello there") + 4 + 3


def test_claude_is_expected_at_half_more_and_held_at_two_and_a_half_times() -> None:
    o200k = tokens.count_prompt(PROMPT, "gpt-5.4-mini")
    assert tokens.count_prompt(PROMPT, "claude-haiku-4-5") == -(-o200k * 3 // 2)
    assert tokens.hold_prompt(PROMPT, "claude-haiku-4-5") == -(-o200k * 5 // 2) + 12
    assert tokens.hold_prompt(PROMPT, "gpt-5.4-mini") == o200k + 16 + o200k // 50


@given(st.text(max_size=200), st.sampled_from(["gpt-5.4-mini", "gpt-4", "claude-haiku-4-5"]))
def test_hold_is_never_below_the_expected_count(text: str, model: str) -> None:
    prompt = Prompt(text, (Message("user", text),), 10)
    assert tokens.hold_prompt(prompt, model) >= tokens.count_prompt(prompt, model)
