"""What an operator may change about a dead job before it runs again: message, agent, metadata.

Checked by the rules of a message that comes in over HTTP. Everything else is the job's identity and stays.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from agents.api import Agent
from ingress.body import parse_message
from shared.config import Settings
from shared.errors import InvalidRequest
from shared.wire import TurnPayload


class Edit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None leaves a part as it was. Metadata is replaced as a whole."""

    message: str | None = None
    agent: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def changes_nothing(self) -> bool:
        return self == Edit()


class Editor:
    def __init__(self, settings: Settings, agents: Mapping[str, Agent]) -> None:
        self._settings, self._agents = settings, agents

    def apply(self, edit: Edit, payload: TurnPayload) -> TurnPayload:
        """The payload of the next run. Raises InvalidRequest with every fault; an unchanged payload has none."""
        if edit.changes_nothing:
            return payload
        faults: list[dict[str, str]] = []
        agent = self._agents.get(edit.agent or payload.agent)
        if agent is None:
            faults.append({"field": "edit/agent", "message": "there is no such agent"})
        faults += self._body_faults(edit)
        if faults or agent is None:
            raise InvalidRequest("The edit has faults; `errors` lists all of them.", faults=faults)
        changes: dict[str, Any] = {"agent": agent.id, "queue": agent.queue}
        if edit.message is not None:
            changes["message"] = edit.message
        if edit.metadata is not None:
            changes["metadata"] = edit.metadata
        return msgspec.structs.replace(payload, **changes)

    def _body_faults(self, edit: Edit) -> list[dict[str, str]]:
        body = {"message": "-" if edit.message is None else edit.message, "metadata": edit.metadata}
        try:
            parse_message(msgspec.json.encode(body), self._settings)
        except InvalidRequest as error:
            return [{**fault, "field": f"edit/{fault['field']}"} for fault in error.faults]
        return []
