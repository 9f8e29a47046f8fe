"""Credentials at rest: opened by the right key for the right channel, and by nothing else."""

from base64 import b64encode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import Settings
from shared.errors import ConfigError
from shared.sealing import Sealer, Unreadable, are_sealing_keys

A, B = (b64encode(bytes([n]) * 32).decode() for n in (1, 2))


@given(st.binary(max_size=300), st.text(max_size=40))
def test_what_was_sealed_is_opened(secret: bytes, about: str) -> None:
    sealer = Sealer(A)
    sealed = sealer.seal(secret, about=about)
    assert sealer.open(sealed, about=about) == secret
    assert sealer.seal(secret, about=about) != sealed, "never the same twice"


def test_it_opens_only_for_what_it_belongs_to() -> None:
    sealed = Sealer(A).seal(b"secret", about="acme/ch-1")
    for about in ("acme/ch-2", "other/ch-1", ""):
        with pytest.raises(Unreadable):
            Sealer(A).open(sealed, about=about)


def test_a_changed_text_is_not_opened() -> None:
    sealed = Sealer(A).seal(b"secret", about="x")
    for n in range(len(sealed)):
        changed = sealed[:n] + ("A" if sealed[n] != "A" else "B") + sealed[n + 1 :]
        with pytest.raises(Unreadable):
            Sealer(A).open(changed, about="x")
    for nonsense in ("", ".", "1.", "1..", sealed[:-8], f"{sealed}A", "1.00000000.é"):
        with pytest.raises(Unreadable):
            Sealer(A).open(nonsense, about="x")


def test_keys_are_rotated_without_a_moment_in_which_nothing_opens() -> None:
    old = Sealer(A).seal(b"secret", about="x")
    both = Sealer(f"{B}, {A}")
    new = both.seal(b"secret", about="x")
    assert both.open(old, about="x") == both.open(new, about="x") == b"secret"
    assert (both.is_current(old), both.is_current(new)) == (False, True)
    assert Sealer(B).open(new, about="x") == b"secret"
    with pytest.raises(Unreadable, match="no key"):
        Sealer(B).open(old, about="x")


def test_without_a_key_nothing_is_sealed() -> None:
    with pytest.raises(ConfigError, match="SWITCHBOARD_CREDENTIALS_KEY"):
        Sealer("").seal(b"secret", about="x")
    assert not Sealer("").usable


@pytest.mark.parametrize("text", ["short", b64encode(b"k" * 31).decode(), f"{A},nonsense", "é" * 44])
def test_what_is_no_key_stops_the_start_and_is_not_shown(text: str) -> None:
    assert not are_sealing_keys(text)
    with pytest.raises(ConfigError, match="32 bytes in base64") as refused:
        Settings.read({"credentials_key": text})
    assert text not in str(refused.value)


def test_both_alphabets_of_base64_are_taken() -> None:
    key = b"\xfb\xff" * 16
    for text in (b64encode(key), urlsafe_b64encode(key)):
        Sealer(text.decode()).seal(b"x", about="x")
