"""Do the models answer? What the workers have found out lately, without asking any provider."""

from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import Servers
from ops.models import ModelState, read_models


async def check_models(servers: Servers) -> list[Finding]:
    state = await read_models(servers.commands)
    found = [finding for model in state.models if (finding := _trouble(model)) is not None]
    return found or [ok("models", "no model is known to be down or paused")]


def _trouble(model: ModelState) -> Finding | None:
    if model.open_s > 0 and model.account:
        what = f"{model.spec} refuses our account: its key, money or rights; next try in {model.open_s:.0f} s"
        return fault(f"models.{model.spec}", what, "look at the key and the account's billing; then wait for that try")
    if model.open_s > 0:
        what = f"{model.spec} has failed too often and is not called; next try in {model.open_s:.0f} s"
        return warning(f"models.{model.spec}", what, "switchboard doctor --online")
    if model.paused_s > 0:
        what = f"{model.spec} is not called for {model.paused_s:.0f} s, as its provider asked"
        return warning(
            f"models.{model.spec}", what, "raise the account's limits, or bound the calls by SWITCHBOARD_*_TPM"
        )
    return None
