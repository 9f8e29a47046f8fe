"""What a setting may be: numbers, addresses, amounts, lists. Used by `shared.config` alone.

The `description` of a type completes "must be …" and its example is shown, when a value is refused.
"""

import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, SecretStr

from shared.tenants import NONE, nano_usd

DAY_S = 86_400
Positive = Annotated[int, Field(ge=1, le=1_000_000_000, examples=[100])]
"""Beyond it neither a database's integer nor a server would go along."""
Seconds = Annotated[float, Field(gt=0, le=DAY_S, allow_inf_nan=False)]
"""Of waiting: beyond a day a timer is none, and some clocks overflow."""
WholeSeconds = Annotated[int, Field(ge=1, le=366 * DAY_S)]
"""Of keeping."""
Days = Annotated[int, Field(ge=1, le=36_500)]


def _address(value: str) -> str:
    """Raises ValueError for a port that is none; several hosts with commas are for the driver to read."""
    if "," not in value:
        urlsplit(value).port  # noqa: B018 - reading it checks it
    return value


def _redis_address(value: str) -> str:
    """Raises ValueError for a database that is no number: the driver would take number 0 instead, and say nothing."""
    parts = urlsplit(_address(value))
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("no socket")
    elif not re.fullmatch(r"(/[0-9]*)?", parts.path):
        raise ValueError("no database")
    for number in parse_qs(parts.query).get("db", []):
        int(number)
    return value


RedisUrl = Annotated[
    str,
    Field(
        pattern=r"^(rediss?|unix)://",
        description="an address redis://[user:password@]host:port/database, or one of rediss:// or unix://",
        examples=["redis://127.0.0.1:6379/0"],
    ),
    AfterValidator(_redis_address),
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
        pattern=r"^https?://[^/\s]\S*$",
        description="an address http://… or https://…",
        examples=["http://127.0.0.1:8002/v1"],
    ),
    AfterValidator(_address),
]


def _mail_address(value: str) -> str:
    """Raises ValueError for an option that does nothing: one that is misspelt would leave TLS as it is."""
    options = parse_qs(urlsplit(_address(value)).query, keep_blank_values=True)
    if any(name != "starttls" or set(given) - {"true", "false"} for name, given in options.items()):
        raise ValueError("unknown option")
    return value


SmtpUrl = Annotated[
    str,
    Field(
        pattern=r"^smtps?://[^/]",
        description="an address smtp://[user:password@]host[:port][?starttls=true|false], or smtps://…",
        examples=["smtp://user:password@mail.example.org:587"],
    ),
    AfterValidator(_mail_address),
]


def _sendable(key: SecretStr) -> SecretStr:
    """Raises ValueError for what no HTTP header may hold: every call would fail, as if the provider were away."""
    if not re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()):
        raise ValueError("not sendable")
    return key


def _project(dsn: SecretStr) -> SecretStr:
    """Raises ValueError for what Sentry's SDK would refuse."""
    parts = urlsplit(dsn.get_secret_value())
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.username:
        raise ValueError("no address with a key")
    int(parts.path.rpartition("/")[2])
    return dsn


Key = Annotated[
    SecretStr,
    Field(
        description="a key without spaces, line ends or letters beyond ASCII: it is sent in a header",
        examples=["sk-0123456789abcdef"],
    ),
    AfterValidator(_sendable),
]
Dsn = Annotated[
    SecretStr,
    Field(description="Sentry's address of a project", examples=["https://key@o1.ingest.sentry.io/2"]),
    AfterValidator(_project),
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


CHANNEL_KINDS = ("slack", "telegram", "twilio", "whatsapp")
"""Those of `shared.channels`, which a test compares: a misspelt one would leave its messages going to the provider."""


def read_channel_urls(value: str) -> dict[str, str]:
    """By kind. Raises ValueError."""
    found = {}
    for part in filter(None, (each.strip() for each in value.split(","))):
        kind, separator, url = (each.strip() for each in part.partition("="))
        if not separator or urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise ValueError(part)
        if kind not in CHANNEL_KINDS or kind in found:
            raise ValueError(kind)
        found[kind] = url.rstrip("/")
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
        description="kinds of channels (slack, telegram, twilio, whatsapp), each once, with their addresses, "
        "with commas between them",
        examples=["whatsapp=http://127.0.0.1:8002/messengers/whatsapp"],
    ),
    AfterValidator(_channel_urls),
]
