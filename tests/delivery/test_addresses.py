"""Where deliveries must not go: by what a URL says, by what a name leads to, and by what it leads to a moment later."""

import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import asyncpg
import pytest

from shared import addresses
from shared.addresses import Address, fault_of, is_public
from tests.conftest import Eventually
from tests.delivery.conftest import Owe, Running, earlier, states
from tests.delivery.receiver import Receiver, receiving
from workers.delivery import resolve
from workers.delivery.outcome import Delivered, Failed
from workers.delivery.post import Poster
from workers.delivery.resolve import Resolver

TLS = Path(__file__).parents[1] / "models" / "tls"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200"),
        *("0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),  # noqa: S104
        *("::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1"),
    ],
)
def test_what_is_not_somebodys_server_on_the_internet(address: str) -> None:
    assert not is_public(ip_address(address))
    host = f"[{address}]" if ":" in address else address
    assert fault_of(f"https://{host}/", allow_private=False) is not None


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946"])
def test_what_is(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost/", "http://a.localhost/", "https://redis.internal/", "https://db/", "https://x.local./"),
        *("http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://[::ffff:7f00:1]/"),
        *("https://example.com:6379/", "https://example.com:22/", "https://user:pw@example.com/"),
        *("ftp://example.com/", "https://", "https://example.com:port/", "file:///etc/passwd", "//example.com/"),
    ],
)
def test_urls_that_are_refused_at_sight(url: str) -> None:
    assert fault_of(url, allow_private=False) is not None


@pytest.mark.parametrize("url", ["https://example.com/a?b=c", "http://example.com:8080/", "https://93.184.216.34/"])
def test_urls_that_are_not(url: str) -> None:
    assert fault_of(url, allow_private=False) is None


class Names:
    """A name server that says something else each time; how often it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers, self.asked = list(answers), 0

    async def __call__(self, _host: str, _port: int) -> Sequence[Address]:
        self.asked += 1
        return [ip_address(text) for text in self._answers[min(self.asked, len(self._answers)) - 1]]


@pytest.fixture
def any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers of the tests have no port of the web."""
    monkeypatch.setattr(addresses, "PORTS", frozenset(range(65_536)))


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"]])
async def test_a_name_that_leads_inside_is_not_called(
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
    any_port: None,
    answer: list[str],
) -> None:
    async with running(Names(answer), delivery_allow_private=False):
        await owe(f"http://hooks.example.com:{receiver.port}/")
        await eventually(lambda: _are(books, "retrying"))
    assert receiver.posts == []
    assert await books.fetchval("SELECT last_error->>'code' FROM deliveries") == "address_refused"


async def test_a_name_that_leads_inside_the_second_time_is_not_called_then(
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
    any_port: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """127.0.0.1 plays the public server, 127.0.0.2 the private one."""
    monkeypatch.setattr(resolve, "is_public", lambda address: address == ip_address("127.0.0.1"))
    receiver.answer(500)
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with running(names, delivery_allow_private=False):
        await owe(f"http://hooks.example.com:{receiver.port}/")
        await eventually(lambda: _are(books, "retrying"))
        await earlier(books, 6)
        await eventually(lambda: _attempts(books, 2))
    assert (len(receiver.posts), names.asked) == (1, 2)
    assert await books.fetchval("SELECT last_error->>'code' FROM deliveries") == "address_refused"


async def test_the_name_is_asked_once_and_its_address_called_with_the_name_kept(receiver: Receiver) -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    poster = _poster(names)
    outcome = await poster.post(f"http://hooks.example.com:{receiver.port}/a?b=c", {}, b"{}")
    await poster.aclose()
    assert outcome == Delivered(200)
    assert names.asked == 1
    (post,) = receiver.posts
    assert (post.headers["host"], post.path) == (f"hooks.example.com:{receiver.port}", "/a?b=c")


@pytest.mark.parametrize(("host", "known"), [("127.0.0.1", True), ("hooks.example.com", False)])
async def test_in_tls_the_certificate_must_be_the_names(host: str, known: bool) -> None:
    """The certificate of the tests is made out to 127.0.0.1, to which the name leads: that is not enough."""
    offered: list[str | None] = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    server.sni_callback = lambda _socket, name, _context: offered.append(name)
    client = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
    async with receiving(tls=server) as receiver:
        poster = _poster(Names(["127.0.0.1"]), tls=client)
        outcome = await poster.post(f"https://{host}:{receiver.port}/", {}, b"{}")
        await poster.aclose()
    assert offered == [None if known else host]  # an address is not offered as a name (RFC 6066 §3)
    assert isinstance(outcome, Delivered) is known
    if isinstance(outcome, Failed):
        assert "certificate" in outcome.message.lower()


async def test_the_other_address_is_tried_when_the_first_does_not_answer(receiver: Receiver) -> None:
    poster = _poster(Names(["127.0.0.3", "127.0.0.1"]))  # nothing listens on 127.0.0.3
    outcome = await poster.post(f"http://hooks.example.com:{receiver.port}/", {}, b"{}")
    await poster.aclose()
    assert outcome == Delivered(200)


async def test_the_systems_resolver_finds_this_machine_and_is_refused_it() -> None:
    resolver = Resolver(allow_private=False, threads=1)
    with pytest.raises(resolve.Refused):
        await resolver.addresses("localhost", 80)
    with pytest.raises(resolve.Unresolved):
        await resolver.addresses("a..b", 80)
    resolver.close()


def _poster(names: Names, *, tls: ssl.SSLContext | None = None) -> Poster:
    resolver = Resolver(allow_private=True, threads=1, lookup=names)
    return Poster(resolver, timeout_s=5.0, allow_private=True, tls=tls)


async def _are(books: asyncpg.Connection, state: str) -> bool:
    return set(await states(books)) == {state}


async def _attempts(books: asyncpg.Connection, many: int) -> bool:
    return await books.fetchval("SELECT count(*) FROM delivery_attempts") == many  # type: ignore[no-any-return]
