"""An agent as one tenant wants it: its settings over the agent's own, for one turn.

Called by the load stage. The registry's agent stays as it is: the tenant's is a copy whose attributes hide the class's,
so that agents with a `prompt` or `answer` of their own are overridden as well, wherever they read them.
"""

import copy

import msgspec

from agents.api import Agent
from shared.tenants import TenantSettings


def tuned(agent: Agent, settings: TenantSettings) -> Agent:
    """The agent itself where the tenant wants nothing else."""
    wanted = settings.agents.get(agent.id)
    if wanted is None:
        return agent
    own = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
    mine = copy.copy(agent)
    vars(mine).update(own)
    return mine
