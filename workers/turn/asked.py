"""What a request in OpenAI's form adds to a turn: the caller's instructions, its bound, and messages given along.

Called by the load stage, after the tenant's own wishes (`tuned`): the caller's come last and change a copy.
"""

import copy
from collections.abc import Iterable

from agents.api import Agent, Message
from shared.wire import Asked

INTRODUCTION = "The program that passes this conversation on to you adds:"
"""Stands between the agent's own prompt, which goes first, and the caller's instructions."""


def instructed(agent: Agent, asked: Asked | None, default_max_tokens: int) -> Agent:
    """The agent itself where the caller wants nothing else. A caller's bound can only lower the agent's."""
    if asked is None or (asked.instructions is None and asked.max_output_tokens is None):
        return agent
    mine = copy.copy(agent)
    if asked.instructions is not None:
        vars(mine)["system_prompt"] = f"{agent.system_prompt}\n\n{INTRODUCTION}\n\n{asked.instructions}"
    if asked.max_output_tokens is not None:
        vars(mine)["max_tokens"] = min(asked.max_output_tokens, agent.max_tokens or default_max_tokens)
    return mine


def given(asked: Iterable[Asked | None]) -> tuple[Message, ...]:
    """All messages that were given along, in order. The caller wants them seen, whatever the agent remembers."""
    return tuple(Message(said.role, said.content) for one in asked if one is not None for said in one.given)
