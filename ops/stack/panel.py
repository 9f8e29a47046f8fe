"""What `switchboard dev` says once everything answers: where things are, and what to try."""

import shlex
from pathlib import Path

from ops.stack.directory import DataDirectory
from ops.stack.environment import DEVELOPMENT_KEY, Backends, Ports

PANEL = """
 Switchboard is ready on {url}   (stop with Ctrl-C)

   console    {console}
   key        {key}
   models     {models}
   Redis      {redis}
   Postgres   {postgres}
   data, logs {data}

 In another terminal:

   . {env}
   {chat}

   curl {url}/v1/agents/support/messages -H 'Authorization: Bearer {key}' \\
     -d '{{"message": "Hello!", "user_id": "ada", "conversation_id": "c-1"}}'

   curl {url}/v1/jobs/JOB_ID -H 'Authorization: Bearer {key}' -H 'Prefer: wait=30'

   curl {console}/v1/dead-jobs -H 'Authorization: Bearer {key}'
"""


def print_panel(
    url: str, console: str, ports: Ports, backends: Backends, *, standin: bool, directory: DataDirectory
) -> None:
    models = f"stand-in on http://127.0.0.1:{ports.standin}" if standin else "the providers whose keys are set"
    chat = "switchboard chat" if url == "http://127.0.0.1:8000" else f"switchboard chat --url {url}"
    text = PANEL.format(
        url=url,
        console=console,
        key=DEVELOPMENT_KEY,
        models=models,
        redis=_without_password(backends.redis_url),
        postgres=_without_password(backends.database_url),
        data=directory.path,
        env=shlex.quote(_short(directory.env)),
        chat=chat,
    )
    print(text, flush=True)


def _short(path: Path) -> str:
    """As it is typed here: `.dev/env`. A slash stays in it, without which a shell looks on its PATH."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path.parent != here else str(path)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}://{user}{':***' if colon else ''}{at}{place}"
