"""Which addresses outsiders may have us call: callback URLs, endpoints, Slack hooks.

`fault_of` judges what a URL says by itself and asks nobody; the ingress calls it at admission. A name may lead
anywhere, and somewhere else a moment later: so the delivery process resolves it for every attempt, once, wants every
address it gets to be `is_public`, and connects to that address and no other (`workers/delivery/post.py`).
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

PORTS = frozenset({80, 443, 8080, 8443})
"""Of the web. Others belong to databases, mail servers and the like, which a request must not be smuggled into."""

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_TUNNELS = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))  # 6to4 and Teredo: an IPv4 address is inside
_INSIDE = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "test", "invalid")
"""Last labels of names that no public server has (RFC 6761, RFC 8375, and common custom)."""

Address = IPv4Address | IPv6Address


def fault_of(url: str, *, allow_private: bool) -> str | None:
    """What keeps us from calling it, completing "the URL …"; None: nothing that can be seen."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "cannot be read"
    if parts.scheme not in {"http", "https"} or not host:
        return "must be http or https, with a host"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user or password"
    if allow_private:
        return None
    if port is not None and port not in PORTS:
        return f"must not have another port than {', '.join(map(str, sorted(PORTS)))}"
    return _host_fault(host)


def is_public(address: Address) -> bool:
    """Whether it is somebody's server on the internet: not ours, nor a way round to ours."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _GLOBAL_UNICAST or any(address in tunnel for tunnel in _TUNNELS):
            return False  # NAT64, link-local and site-local addresses are outside 2000::/3
    return address.is_global and not address.is_multicast


def _host_fault(host: str) -> str | None:
    try:
        return None if is_public(ip_address(host)) else "must not lead to a private address"
    except ValueError:
        pass
    labels = host.rstrip(".").split(".")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        return "must not lead to a private address"  # an IPv4 address written to look like a name: 127.1, 0x7f000001
    if len(labels) < 2 or labels[-1] in _INSIDE:
        return "must not lead to a private address"
    return None
