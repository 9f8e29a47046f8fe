"""What requests about users may say."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ops.console.asks import Word


class UsersQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Word | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Word | None = None
