"""The `switchboard` command: one subcommand per process of the Procfile, plus the tools of the people who run it.

Every subcommand imports its part when it runs, so that `--help` is quick and a process loads only what it needs.
What is wrong is said on stderr, a line each: exit code 2 for settings, 1 for a part that cannot run.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ops import jobs
from ops.alerts import command as alerts
from ops.channels import command as channels
from ops.dead import command as dead
from ops.deliveries import command as deliveries
from ops.memory import command as memory
from ops.profiles import command as profiles
from ops.tenants import command as tenants
from ops.usage import command as usage
from ops.users import command as users
from shared.config import Settings, unknown_variables
from shared.errors import ConfigError, SwitchboardError
from shared.heap import settle_heap

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(channels.app, name="channels")
app.add_typer(dead.app, name="dead")
app.add_typer(jobs.app, name="jobs")
app.add_typer(tenants.tenants, name="tenants")
app.add_typer(tenants.keys, name="keys")
app.add_typer(usage.app, name="usage")
app.add_typer(deliveries.endpoints, name="endpoints")
app.add_typer(deliveries.deliveries, name="deliveries")
app.add_typer(alerts.app, name="alerts")
users.app.add_typer(profiles.profile, name="profile")
users.app.add_typer(profiles.facts, name="facts")
app.add_typer(users.app, name="users")
app.add_typer(memory.app, name="memory")


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except (SwitchboardError, ConnectionError) as error:
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    sys.stderr.write(f"switchboard: {error}\n")
    sys.exit(code)


@app.command()
def dev(
    port: Annotated[
        int | None, typer.Option(help="Of the ingress; the console and the models take the next two.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    data: Annotated[Path, typer.Option(help="Where the embedded servers keep their data.")] = Path(".dev"),
) -> None:
    """Run everything on this machine: Valkey, PostgreSQL, models, ingress and workers."""
    from ops.dev import run  # noqa: PLC0415 - loaded by this command only

    sys.exit(run(_settings(port=port), workers=workers, data=data))


@app.command()
def ingress(
    host: Annotated[str | None, typer.Option(help="Default: SWITCHBOARD_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: PORT.")] = None,
) -> None:
    """Serve HTTP: take messages in, give replies out."""
    from ingress.app import create_app  # noqa: PLC0415 - loaded by this command only
    from ingress.connection import Connection  # noqa: PLC0415 - loaded by this command only
    from ops.serve import serve  # noqa: PLC0415 - loaded by this command only

    settings = _settings(host=host, port=port)
    app = create_app(settings)
    settle_heap()
    serve(app, settings, http=Connection)


@app.command()
def worker(
    queue: Annotated[str | None, typer.Option(help="The queue to serve. Default: SWITCHBOARD_QUEUE.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Jobs in flight at once.")] = None,
) -> None:
    """Run chat jobs."""
    from workers.main import run  # noqa: PLC0415 - loaded by this command only

    sys.exit(run(_settings(queue=queue, worker_concurrency=concurrency)))


@app.command()
def delivery(
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests under way at once.")] = None,
) -> None:
    """Send what is owed: webhooks, and alerts to Slack and by e-mail."""
    from workers.delivery.main import run  # noqa: PLC0415 - loaded by this command only

    sys.exit(run(_settings(delivery_concurrency=concurrency)))


@app.command()
def console(
    host: Annotated[str | None, typer.Option(help="Default: SWITCHBOARD_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: PORT.")] = None,
) -> None:
    """Serve HTTP for operators: dead jobs, queues, metrics."""
    from ops.console.app import create_console  # noqa: PLC0415 - loaded by this command only
    from ops.serve import serve  # noqa: PLC0415 - loaded by this command only

    settings = _settings(host=host, port=port)
    serve(create_console(settings), settings)


@app.command()
def openapi(
    console: Annotated[bool, typer.Option("--console", help="Of the console instead of the ingress.")] = False,
) -> None:
    """Print the API document (OpenAPI 3.1), with this deployment's limits."""
    from ops.document import printed  # noqa: PLC0415 - loaded by this command only

    print(printed(_settings(), console=console))


@app.command()
def migrate(
    adopt: Annotated[bool, typer.Option("--adopt", help="Make a copied database a deployment of its own.")] = False,
) -> None:
    """Bring the database's schema up to date, and write down which environment it belongs to."""
    from ops.stack.release import release  # noqa: PLC0415 - loaded by this command only

    settings = _settings()
    dsn = settings.owner_database_url or settings.database_url
    for line in release(dsn, settings.environment, adopt=adopt) or ["nothing to do"]:
        print(line)


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
    online: Annotated[bool, typer.Option("--online", help="Also ask each provider whether its key is valid.")] = False,
) -> None:
    """Say what is missing or wrong with settings, Redis, Postgres, keys, clocks and queues, and how to mend it."""
    from ops.doctor.command import run  # noqa: PLC0415 - loaded by this command only

    sys.exit(run(json=json, online=online))


@app.command()
def chat(
    agent: Annotated[str, typer.Option(help="Which agent to talk to.")] = "support",
    url: Annotated[str, typer.Option(help="Of the ingress.")] = "http://127.0.0.1:8000",
    key: Annotated[str, typer.Option(help="API key.")] = "sk-switchboard-dev",
    user: Annotated[str | None, typer.Option(help="Who is talking; agents with memory remember by it.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
) -> None:
    """Talk to an agent in this terminal (or through a pipe, a message a line)."""
    from ops.chat import Chat, run  # noqa: PLC0415 - loaded by this command only

    sys.exit(run(Chat(agent=agent, url=url, key=key, user=user, conversation=conversation)))


def _settings(**options: Any) -> Settings:
    settings = Settings.read({name: value for name, value in options.items() if value is not None})
    for sentence in unknown_variables():
        sys.stderr.write(f"switchboard: {sentence}\n")
    return settings
