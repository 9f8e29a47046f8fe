"""The code in a read token is HMAC-SHA256, whatever way it is made: tokens given out long ago must go on to open."""

import hmac
from base64 import urlsafe_b64encode

import pytest

from ingress.tokens import MAC_BYTES, ReadTokens
from shared.config import Settings

JOB = "01a1ff8b-6da4-7356-a51a-a6532042e8dc"


@pytest.mark.parametrize("length", [32, 64, 65, 200])
def test_a_token_is_the_librarys_hmac(length: int) -> None:
    secret = "s\u00e9" * (length // 3) + "x" * (length % 3)
    assert len(secret.encode()) == length
    digest = hmac.digest(secret.encode(), f"read-job\0a\0{JOB}".encode(), "sha256")
    expected = urlsafe_b64encode(digest[:MAC_BYTES]).rstrip(b"=").decode()
    tokens = ReadTokens(Settings.read({"secret": secret}))
    assert tokens.sign("a", JOB) == f"a.{expected}"
    assert tokens.sign("a", JOB) == f"a.{expected}", "signing leaves nothing behind"
    assert tokens.tenant_of(f"a.{expected}", JOB) == "a"


def test_without_a_secret_each_process_has_its_own() -> None:
    one, other = ReadTokens(Settings.read({})), ReadTokens(Settings.read({}))
    assert one.tenant_of(one.sign("a", JOB), JOB) == "a"
    assert other.tenant_of(one.sign("a", JOB), JOB) is None
