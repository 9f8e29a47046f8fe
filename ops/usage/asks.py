"""What may be asked for, as text: a query string or the command line's options become a question, or all their faults.

Time is a whole current `period` (the month, if nothing is said), or `from` and `to`.
"""

from datetime import datetime
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from ops.console.asks import Word
from ops.usage.report import NAMES, Name, Question, UsageFilter
from ops.usage.spans import UNITS, Span, Unit, current, moment
from shared.errors import InvalidRequest

_WORDS = "|".join((*UNITS, *NAMES))


def _read_moment(value: Any) -> Any:
    try:
        return moment(value)
    except ValueError as error:
        raise PydanticCustomError("moment", "{why}", {"why": str(error)}) from None


def _read_by(value: Any) -> Any:
    words = [word.strip() for word in value.split(",")]
    unknown = [word for word in words if word not in (*UNITS, *NAMES)]
    if unknown:
        raise PydanticCustomError("by", "must name some of {known}", {"known": ", ".join((*UNITS, *NAMES))})
    if len(set(words)) != len(words):
        raise PydanticCustomError("by", "must name each thing once")
    if len(set(words) & set(UNITS)) > 1:
        raise PydanticCustomError("by", "must name one unit of time at most")
    return tuple(words)


_MOMENT = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2}))?$",
}
Moment: TypeAlias = Annotated[datetime, BeforeValidator(_read_moment), WithJsonSchema(_MOMENT)]
By: TypeAlias = Annotated[
    tuple[Unit | Name, ...],
    BeforeValidator(_read_by),
    WithJsonSchema({"type": "string", "pattern": f"^({_WORDS})(,({_WORDS}))*$"}),
]


class UsageQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    by: By = "day"  # type: ignore[assignment]  # as callers write it, for them to read; validated like theirs
    """What to group by, one or several, separated by commas; one unit of time at most."""
    period: Unit | None = None
    """The current hour, day, week (from Monday) or month, UTC. The month, where neither this nor `from` is given."""
    from_: Annotated[Moment | None, Field(alias="from")] = None
    """Calls from this day or moment on, instead of a period."""
    to: Moment | None = None
    """Calls before this day (its beginning, UTC) or moment. Now, where only `from` is given."""
    tenant: Word | None = None
    """One tenant only. An `admin` key has no other than its own."""
    user: Word | None = None
    """Calls for this user."""
    agent: Word | None = None
    """Calls of this agent."""
    conversation: Word | None = None
    """Calls in this conversation."""
    domain: Word | None = None
    """Calls booked to this domain."""
    feature: Word | None = None
    """Calls booked to this feature."""
    kind: Word | None = None
    """Calls of this kind, such as `chat`."""
    provider: Word | None = None
    """Calls of this provider."""
    model: Word | None = None
    """Calls of this model, by the name it was asked for."""
    status: Word | None = None
    """Calls that ended so: `ok`, `error` (refused), `cut` (broken off), `aborted` or `lost`."""
    top: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """The dearest groups only."""
    fill: bool = False
    """A zero line for each unit of time without calls, up to now."""

    def question(self, now: datetime) -> Question:
        """Raises InvalidRequest with what no field alone shows."""
        faults = [{"field": field, "message": message} for field, message in self._contradictions(now)]
        if faults:
            raise InvalidRequest("The request has faults; `errors` lists all of them.", faults=faults)
        span = Span(self.from_, self.to or now) if self.from_ else current(self.period or "month", now)
        wanted = {name: getattr(self, name) for name in UsageFilter.__struct_fields__}
        until = now if self.fill else None
        return Question(span=span, by=self.by, filter=UsageFilter(**wanted), top=self.top, fill_until=until)

    def _contradictions(self, now: datetime) -> list[tuple[str, str]]:
        rules = (
            ("period", "must not be given beside `from`", self.period and self.from_),
            ("to", "must not be given without `from`", self.to and not self.from_),
            ("to", "must be after `from`", self.from_ and (self.to or now) <= self.from_),
            ("fill", "must not be given without a unit of time in `by`", self.fill and not set(self.by) & set(UNITS)),
        )
        return [(field, message) for field, message, broken in rules if broken]
