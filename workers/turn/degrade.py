"""Degrade before failing: what a user is told when the budget is spent or no provider answers.

Called by `answer` where an attempt would end its job as dead. A spent budget degrades at once, as nothing changes by
trying again; providers that fail only when the attempts are used up, so that retries still get a real answer. First a
kept answer to the very same question, however old, then a sentence: the tenant's, the agent's or the deployment's. It
costs nothing, and it is the reply of the job, not a message of the conversation.
"""

from typing import Protocol

from agents.api import Completion, Reply
from shared.errors import AccountRejected, BudgetExhausted, UpstreamError
from shared.jobs import Degraded
from shared.tenants import NONE
from workers import metrics
from workers.turn.work import Done, Work


class Kept(Protocol):
    """Where an earlier answer to the turn's question may be kept."""

    async def stale(self) -> Completion | None: ...


def degraded_by(error: Exception) -> Degraded | None:
    """None for a failure that is no reason: a refusal, a request of ours that is wrong, a surprise."""
    if isinstance(error, BudgetExhausted):
        return "budget"
    if isinstance(error, AccountRejected) or (isinstance(error, UpstreamError) and error.retryable):
        return "providers"
    return None


async def degraded(error: Exception, work: Work, kept: Kept, deployments_reply: str) -> Done | None:
    """None: the job fails, as it would without us."""
    why, text = degraded_by(error), _template(work, deployments_reply)
    if why is None or text is None:
        return None
    completion, source = await kept.stale(), "template"
    if completion is not None:
        text, source = completion.text, "cached"
    metrics.count_degraded(work.agent.id if work.agent else metrics.UNKNOWN, why, source)
    return Done(Reply(text), why)


def _template(work: Work, deployments_reply: str) -> str | None:
    """None where this is switched off."""
    agents_reply = work.agent.degraded_reply if work.agent else None
    text = work.settings.degraded_reply or agents_reply or deployments_reply
    return None if text == NONE else text
