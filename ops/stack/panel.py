"""What `switchboard dev` says once everything answers: where things are, and what to try."""

from pathlib import Path

from ops.stack.environment import DEVELOPMENT_KEY, Backends, Ports

PANEL = """
 Switchboard is ready on {url}   (stop with Ctrl-C)

   console    {console}
   key        {key}
   models     {models}
   Redis      {redis}
   Postgres   {postgres}
   data, logs {data}

 Try:

   curl {url}/v1/agents/support/messages -H 'Authorization: Bearer {key}' \\
     -d '{{"message": "Hello!", "user_id": "ada", "conversation_id": "c-1"}}'

   curl {url}/v1/jobs/JOB_ID -H 'Authorization: Bearer {key}' -H 'Prefer: wait=30'

   curl {console}/v1/dead-jobs -H 'Authorization: Bearer {key}'

   {chat}
"""


def print_panel(url: str, console: str, ports: Ports, backends: Backends, *, standin: bool, data: Path) -> None:
    models = f"stand-in on http://127.0.0.1:{ports.standin}" if standin else "the providers whose keys are set"
    chat = "switchboard chat" if url == "http://127.0.0.1:8000" else f"switchboard chat --url {url}"
    text = PANEL.format(
        url=url,
        console=console,
        key=DEVELOPMENT_KEY,
        models=models,
        redis=_without_password(backends.redis_url),
        postgres=_without_password(backends.database_url),
        data=data,
        chat=chat,
    )
    print(text, flush=True)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}://{user}{':***' if colon else ''}{at}{place}"
