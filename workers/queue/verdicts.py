"""What a job function may answer besides an ordinary result: how its attempt ends in the queue.

A plain return value means what it means in arq: success, the value is the result. `Ended` and `Again` also write fields
of the job record, which is how a chat turn tells its caller what became of it.
"""

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct, field

from shared.redis import Argument

Fields: TypeAlias = Mapping[str, Argument]


class Ended(Struct, frozen=True):
    """The job is over; `fields["state"]` says how."""

    fields: Fields
    posted: bool = True
    """Postgres has every ledger row of this job; Redis may forget them."""


class Again(Struct, frozen=True):
    """Try again after `delay_ms`, at the job's own place in the queue. The attempt counts."""

    delay_ms: int
    fields: Fields = field(default_factory=dict)
    posted: bool = True


Verdict: TypeAlias = Ended | Again
