"""What the processes of a development stack are told: their ports, and their environment.

The environment is the children's only configuration, as on any platform. What the user set wins where that makes sense.
"""

import os
import shlex
import socket
import sys
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.stack.process import StackError
from shared.config import Settings
from workers.embeddings.local import NAME as LOCAL_MODEL
from workers.embeddings.local import is_installed

DEVELOPMENT_KEY = "sk-switchboard-dev"
STANDIN_KEY = "sk-stand-in"
CREDENTIALS_KEY = b64encode(b"switchboard-development-only-key").decode()
"""As public as the API key above, and the same tomorrow: what it sealed is in the data folder."""
DRAIN_S = 3.0
"""A developer's Ctrl-C should not take as long as a deploy may."""


@dataclass(frozen=True)
class Ports:
    """`switchboard dev --port N` takes N for the ingress, N + 1 for the console, N + 2 for the stand-in."""

    ingress: int

    @property
    def console(self) -> int:
        return self.ingress + 1

    @property
    def standin(self) -> int:
        return self.ingress + 2

    @property
    def metrics(self) -> int:
        """Of the first worker; the others take what is free after it."""
        return self.ingress + 3


@dataclass(frozen=True, kw_only=True)
class Backends:
    """Where Redis and Postgres are, embedded or given."""

    redis_url: str
    database_url: str
    owner_database_url: str
    ops_database_url: str | None
    """None: not given with a Postgres of the user's own."""


def uses_standin(settings: Settings) -> bool:
    return settings.openai_api_key is None and settings.anthropic_api_key is None


def for_children(settings: Settings, ports: Ports, backends: Backends) -> Mapping[str, str]:
    """The complete environment of a child process."""
    environment = {
        **os.environ,  # noqa: TID251 - handed on to the children as it is, not read
        "PYTHONUNBUFFERED": "1",
        "PORT": str(ports.ingress),
        "REDIS_URL": backends.redis_url,
        "DATABASE_URL": backends.database_url,
        "SWITCHBOARD_OWNER_DATABASE_URL": backends.owner_database_url,
    }
    if backends.ops_database_url:
        environment["SWITCHBOARD_OPS_DATABASE_URL"] = backends.ops_database_url
    if uses_standin(settings):
        standin = f"http://127.0.0.1:{ports.standin}"
        environment |= {"OPENAI_API_KEY": STANDIN_KEY, "OPENAI_BASE_URL": f"{standin}/v1"}
        environment |= {"ANTHROPIC_API_KEY": STANDIN_KEY, "ANTHROPIC_BASE_URL": standin}
        if "channel_urls" not in settings.model_fields_set:
            urls = (f"{kind}={standin}/messengers/{kind}" for kind in ("whatsapp", "twilio", "telegram", "slack"))
            environment["SWITCHBOARD_CHANNEL_URLS"] = ",".join(urls)
    if not settings.credentials_key.get_secret_value():
        environment["SWITCHBOARD_CREDENTIALS_KEY"] = CREDENTIALS_KEY
    if "log_format" not in settings.model_fields_set:
        environment["SWITCHBOARD_LOG_FORMAT"] = "console"
    if "metrics_port" not in settings.model_fields_set:
        environment["SWITCHBOARD_METRICS_PORT"] = str(ports.metrics)
    if "delivery_allow_private" not in settings.model_fields_set and settings.environment != "production":
        environment["SWITCHBOARD_DELIVERY_ALLOW_PRIVATE"] = "true"  # a developer's receiver is on this machine
    if "embedding_model" not in settings.model_fields_set and is_installed():
        environment["SWITCHBOARD_EMBEDDING_MODEL"] = LOCAL_MODEL  # real meaning without a key
    if "drain_s" not in settings.model_fields_set:
        environment["SWITCHBOARD_DRAIN_S"] = str(DRAIN_S)
    return environment


def for_terminal(environment: Mapping[str, str]) -> str:
    """For a shell to read: what the stack told its processes beyond what it was told itself, and the commands' path.

    With it, `switchboard …` in another terminal finds the same servers and keys as they do.
    """
    own = {name: value for name, value in environment.items() if os.environ.get(name) != value}  # noqa: TID251
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(own.items()) if name != "PYTHONUNBUFFERED"]
    commands = shlex.quote(str(Path(sys.executable).parent))
    return "\n".join([*lines, f'export PATH={commands}:"$PATH"', ""])


def check_ports(host: str, wanted: Mapping[str, int]) -> None:
    """Raise StackError in one line when one of `wanted` (use → port) cannot be had."""
    for use, port in wanted.items():
        if port > 65535:
            raise StackError(f"port {port} for the {use} does not exist: choose a lower --port")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
            try:
                probe.bind((host, port))
            except OSError as error:
                raise StackError(f"{host}:{port} for the {use} is not free ({error.strerror}): use --port") from None
