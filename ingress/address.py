"""Where a request comes from, for limits on those we do not know.

Behind a proxy the peer is the proxy. It is believed about `X-Forwarded-For` only when `SWITCHBOARD_TRUSTED_PROXIES`
names it: anybody can send that header. Read from the right, where each proxy adds the peer it saw, the first address
that is no trusted proxy is the client's.
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import Scope

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
NOWHERE = "unknown"
"""A peer without an address (a Unix socket): all of them together."""
IPV6_SITE_BITS = 64
"""One customer has this many bits to himself, so that a single address of his says nothing."""


def networks(text: str) -> list[Network]:
    """`"10.0.0.0/8, ::1"`; a single address is a network of its own. Raises ValueError."""
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


def client_address(scope: Scope, trusted: Sequence[Network]) -> str:
    """The client's IPv4 address, or its IPv6 network."""
    peer = _address((scope.get("client") or ("",))[0])
    if peer is None:
        return NOWHERE
    for before in _forwarded(scope):
        if not any(peer in network for network in trusted):
            break
        if before is None:  # a proxy that writes what cannot be read is as far as we can see
            break
        peer = before
    if isinstance(peer, IPv6Address):
        return str(ip_network((peer, IPV6_SITE_BITS), strict=False))
    return str(peer)


def _forwarded(scope: Scope) -> Iterator[Address | None]:
    """The addresses in `X-Forwarded-For`, the last one first; None for one that cannot be read."""
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    for part in reversed(",".join(lines).split(",") if lines else []):
        yield _address(part.strip())


def _address(text: str) -> Address | None:
    """Some proxies add a port: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])  # a zone is the peer's own business
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
