"""What a rule may say. Everything is checked before it is stored: a rule that cannot be judged would warn nobody."""

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from ingress.body import whole
from ops.console.asks import Word
from shared.budgets import ScopeKind
from workers.alerts.records import DEFAULT_THRESHOLDS, LEAST, METRICS, UNKNOWN_YET, Metric

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
MOST = Decimal(10**9)
SHARES = frozenset({"error_rate", "dau_drop"})
_EMAIL = re.compile(r"[^@\s<>,;\x00-\x1f]{1,64}@[^@\s<>,;\x00-\x1f]{1,255}")


def _fault(message: str) -> PydanticCustomError:
    return PydanticCustomError("alert", "{text}", {"text": message})


def _metric(value: object) -> object:
    if isinstance(value, str) and value in UNKNOWN_YET:
        raise _fault(f"cannot be judged: {UNKNOWN_YET[value]}")
    if value not in METRICS:
        raise _fault(f"must be one of {', '.join(METRICS)}")
    return value


def _number(value: object) -> str:
    """A decimal as its text, exactly as it was written."""
    try:
        number = Decimal(str(value)) if type(value) in (int, float, str) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or not 0 < number <= MOST or round(number, 9) != number:
        raise _fault(f"must be a number, more than 0 and at most {MOST}, with at most 9 decimals")
    return f"{number.normalize():f}"


_NUMBER: Any = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)?$"}]}
Threshold = Annotated[str, BeforeValidator(_number), WithJsonSchema(_NUMBER)]


class TargetBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: Literal["slack", "email", "webhook"]
    """`slack`: an incoming webhook of Slack, or of Discord with `/slack` after it."""
    to: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[^\x00-\x20]*$")]
    """A URL; for e-mail an address."""

    @model_validator(mode="after")
    def _address(self) -> "TargetBody":
        if self.kind == "email" and not _EMAIL.fullmatch(self.to):
            raise _fault("`to` must be an e-mail address")
        return self


def _once(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise _fault("must name each one once")
    return values


class AlertBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    metric: Annotated[Metric, BeforeValidator(_metric)]
    thresholds: Annotated[list[Threshold], Field(max_length=10), AfterValidator(_once)] | None = None
    """Shares of a budget, dollars, seconds or shares; those of the metric when not given."""
    scopes: Annotated[list[ScopeKind], Field(max_length=6), AfterValidator(_once)] = []
    """Which budgets; none named: all there are."""
    least: Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(whole)] | None = None
    """How many jobs, conversations or users there must have been before a share or an average counts."""
    targets: Annotated[list[TargetBody], Field(min_length=1, max_length=10), AfterValidator(_once)]

    @model_validator(mode="after")
    def _fits(self) -> "AlertBody":
        """What is allowed by itself, but not for this metric."""
        if self.scopes and self.metric != "budget":
            raise _fault("`scopes` are of the metric `budget`")
        if self.least is not None and self.metric not in LEAST:
            raise _fault(f"`least` is of the metrics {', '.join(LEAST)}")
        if self.metric == "endpoint_disabled" and self.thresholds:
            raise _fault("`endpoint_disabled` has no thresholds")
        if self.metric != "endpoint_disabled" and self.thresholds == []:
            raise _fault("`thresholds` must not be empty")
        most = 10 if self.metric == "budget" else 1
        if self.metric in SHARES | {"budget"} and any(Decimal(each) > most for each in self.thresholds or []):
            raise _fault(f"`thresholds` are shares: 0.5 is 50 %; at most {most}")
        return self

    def rule(self) -> dict[str, Any]:
        """As it is stored."""
        thresholds = DEFAULT_THRESHOLDS[self.metric] if self.thresholds is None else self.thresholds
        stored: dict[str, Any] = {
            "metric": self.metric,
            "thresholds": sorted(thresholds, key=Decimal),
            "targets": [{"kind": target.kind, "to": target.to} for target in self.targets],
        }
        if self.scopes:
            stored["scopes"] = self.scopes
        return stored if self.least is None else {**stored, "least": self.least}


class AlertsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Word | None = None


class EventsQuery(AlertsQuery):
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Word | None = None


def is_name(text: str) -> bool:
    return re.fullmatch(NAME.removesuffix("$"), text) is not None
