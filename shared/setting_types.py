"""What a setting may be: numbers, addresses, amounts, lists. Used by `shared.config` alone.

The `description` of a type completes "must be …" and its example is shown, when a value is refused.
"""

from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from shared.tenants import NONE, nano_usd

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _address(value: str) -> str:
    """Raises ValueError for a port that is none; several hosts with commas are for the driver to read."""
    if "," not in value:
        urlsplit(value).port  # noqa: B018 - reading it checks it
    return value


RedisUrl = Annotated[
    str,
    Field(
        pattern=r"^(rediss?|unix)://",
        description="an address redis://[user:password@]host:port/database, or one of rediss:// or unix://",
        examples=["redis://127.0.0.1:6379/0"],
    ),
    AfterValidator(_address),
]
PostgresUrl = Annotated[
    str,
    Field(
        pattern=r"^postgres(ql)?://",
        description="an address postgresql://role[:password]@host:port/database",
        examples=["postgresql://switchboard_app:…@127.0.0.1:5432/switchboard"],
    ),
    AfterValidator(_address),
]
HttpUrl = Annotated[
    str,
    Field(
        pattern=r"^https?://[^/]",
        description="an address http://… or https://…",
        examples=["http://127.0.0.1:8002/v1"],
    ),
    AfterValidator(_address),
]
SmtpUrl = Annotated[
    str,
    Field(
        pattern=r"^smtps?://[^/]",
        description="an address smtp://[user:password@]host[:port][?starttls=true|false], or smtps://…",
        examples=["smtp://user:password@mail.example.org:587"],
    ),
    AfterValidator(_address),
]


def _amount(value: str) -> str:
    """Raises ValueError for what is neither `none` nor an amount."""
    if value != NONE:
        nano_usd(value)
    return value


def _networks(value: str) -> str:
    """Raises ValueError for a part that is no network."""
    for part in filter(None, (each.strip() for each in value.split(","))):
        ip_network(part)
    return value


def _channel_urls(value: str) -> str:
    """Raises ValueError for what is not `kind=address`, with commas."""
    read_channel_urls(value)
    return value


def read_channel_urls(value: str) -> dict[str, str]:
    """By kind. Raises ValueError."""
    found = {}
    for part in filter(None, (each.strip() for each in value.split(","))):
        kind, separator, url = part.partition("=")
        if not separator or urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise ValueError(part)
        found[kind.strip()] = url.strip().rstrip("/")
    return found


Usd = Annotated[
    str,
    Field(description="US dollars as a decimal number with at most 9 decimals, or none", examples=["50"]),
    AfterValidator(_amount),
]
Networks = Annotated[
    str,
    Field(description="IP addresses or networks with commas between them", examples=["10.0.0.0/8,192.0.2.7"]),
    AfterValidator(_networks),
]
ChannelUrls = Annotated[
    str,
    Field(
        description="kinds of channels with their addresses, with commas between them",
        examples=["whatsapp=http://127.0.0.1:8002/messengers/whatsapp"],
    ),
    AfterValidator(_channel_urls),
]
