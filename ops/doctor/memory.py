"""Memory: what it is searched by, and whether what was said gets there. Of all tenants, through switchboard_ops."""

from datetime import UTC, datetime
from typing import Any

from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import OPS, Servers
from shared.errors import AgentError, ConfigError, UpstreamError
from shared.jobs import Usage
from sql import queries
from workers.embeddings.catalog import open_embedder
from workers.embeddings.upkeep import NONE
from workers.ledger import prices

LATE_S = 600.0
ONLINE_TIMEOUT_S = 10.0
_WRITER = "switchboard delivery   # with SWITCHBOARD_MEMORY_WRITER=true"


async def check_embeddings(servers: Servers) -> list[Finding]:
    """The model that is searched by can be asked here, is the one of the settings, and gets on."""
    models = await _models(servers)
    wanted = servers.settings.embedding_model
    active = next((model for model in models if model["state"] == "active"), None)
    if active is None:
        if wanted == NONE:
            return [ok("embeddings", "memory is searched by words")]
        return [warning("embeddings", f"{wanted} is not there yet: the first delivery process begins it", _WRITER)]
    found = [finding for model in models for finding in await _model(servers, model)]
    if wanted not in (NONE, *(model["name"] for model in models)):
        what = f"memory is searched by {active['name']}, and SWITCHBOARD_EMBEDDING_MODEL={wanted} does nothing"
        found.append(warning("embeddings.other", what, f"switchboard memory models add {wanted} --activate"))
    return found


async def _models(servers: Servers) -> list[Any]:
    rows = await servers.login(OPS).fetch(queries["embedding_models"])
    return [row for row in rows if row["state"] in ("active", "building")]


async def _model(servers: Servers, model: Any) -> list[Finding]:
    name, check = model["name"], f"embeddings.{model['name']}"
    try:
        embedder = open_embedder(name, servers.settings)
        await embedder.aclose()
        if not embedder.free:
            prices.shipped().price(embedder.provider, embedder.model, Usage(input_tokens=1), datetime.now(UTC))
    except ConfigError as error:
        return [
            fault(check, f"it cannot be asked: {error}", "mend that, or: switchboard memory models add another one")
        ]
    except AgentError as error:
        return [fault(check, f"it is not asked: {error}", f"add {name} to {prices.OVERRIDES.name}")]
    late = await servers.login(OPS).fetchrow(queries["late_embeddings_of"], model["model_id"])
    what = f"{model['state']}, {model['dimensions']} dimensions; {late['pending']} texts wait for their vector"
    if late["overdue_s"] > LATE_S:
        return [fault(check, f"{what}, the first one is {late['overdue_s']:.0f} s overdue", _WRITER)]
    if late["failing"]:
        said = f"{what}, {late['failing']} of them have failed five times or more"
        return [warning(check, said, f"switchboard memory models progress {name}")]
    return [ok(check, what)]


async def check_embeddings_online(servers: Servers) -> list[Finding]:
    """One word with each model: whether its server takes the key, and answers in the dimensions that are kept."""
    return [await _asked(servers, model) for model in await _models(servers)]


async def _asked(servers: Servers, model: Any) -> Finding:
    check, variable = f"embeddings.{model['name']}.online", "SWITCHBOARD_EMBEDDING_BASE_URL and _API_KEY"
    try:
        embedder = open_embedder(model["name"], servers.settings)
    except ConfigError as error:
        return warning(check, f"not asked: {error}")
    try:
        await embedder.embed(["hello"], "query", timeout_s=ONLINE_TIMEOUT_S)
    except (UpstreamError, TimeoutError) as error:
        return fault(check, f"it does not answer as it should: {str(error) or 'not in time'}", f"mend {variable}")
    finally:
        await embedder.aclose()
    return ok(check, f"answers in {model['dimensions']} dimensions")


async def check_memory(servers: Servers) -> list[Finding]:
    """What was said is taken in, and summaries and facts are made."""
    login = servers.login(OPS)
    outbox = await login.fetchrow(queries["memory_outbox_load"])
    what = f"{outbox['turns']} turns are not taken in yet"
    if outbox["failing"]:
        said = f"{what}; {outbox['failing']} could not be"
        mend = "as switchboard_ops: SELECT id, last_error FROM memory_outbox WHERE attempts > 0"
        found = [warning("memory", said, mend)]
    elif outbox["oldest_s"] > LATE_S:
        found = [fault("memory", f"{what}, the oldest for {outbox['oldest_s']:.0f} s", _WRITER)]
    else:
        found = [ok("memory", what)]
    for row in await login.fetch(queries["memory_task_load"]):
        if row["oldest_s"] > LATE_S:
            said = f"{row['due']} are due, the oldest for {row['oldest_s']:.0f} s; {row['failing']} have failed before"
            mend = "switchboard delivery   # with SWITCHBOARD_MEMORY_TASKS > 0 and a key for SWITCHBOARD_MEMORY_MODELS"
            found.append(warning(f"memory.{row['kind']}", said, mend))
    return found
