"""Profiles and facts in Postgres, for console and command line; always of one tenant."""

from collections.abc import Mapping, Sequence

import msgspec

from ops.profiles.asks import ProfileBody, is_topic, is_user_id
from ops.profiles.records import Entry, Profile, UserFact
from shared.db import Pool, jsonb
from shared.errors import NotFound
from sql import queries


class ProfileBooks:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def profile(self, tenant: str, user: str) -> Profile:
        raw = await self._pool.fetchval(queries["user_profile"], tenant, _known(user))
        if raw is None:
            raise no_such_user()
        return _profile(tenant, user, raw)

    async def change_profile(self, tenant: str, user: str, body: ProfileBody, by: str) -> Profile:
        """A user nobody has heard of yet may have one. What is written here is never replaced by what is found."""
        given = body.model_dump(exclude_unset=True)
        entries = {name: {"value": value, "sources": []} for name, value in given.items() if value is not None}
        gone = [name for name, value in given.items() if value is None]
        return await self._changed(tenant, user, entries, gone, by)

    async def erase_profile(self, tenant: str, user: str, by: str) -> Profile:
        """All of it; what the user tells from now on is found again."""
        known = await self.profile(tenant, user)
        return await self._changed(tenant, user, {}, list(known.entries), by)

    async def facts(self, tenant: str, user: str, *, past: bool) -> list[UserFact]:
        """The newest first. Nothing for a user nobody has heard of."""
        rows = await self._pool.fetch(queries["list_facts"], tenant, _known(user), past)
        return [msgspec.json.decode(row["fact"], type=UserFact) for row in rows]

    async def put_fact(self, tenant: str, user: str, topic: str, text: str, by: str) -> UserFact:
        """It holds from now on. Raises NotFound for a topic that cannot be one."""
        if not is_topic(topic):
            raise NotFound("There is no such topic: a to z, 0 to 9 and _ make one.")
        raw = await self._pool.fetchval(queries["put_fact"], tenant, _known(user), topic, text, by)
        return msgspec.json.decode(raw, type=UserFact)

    async def erase_facts(self, tenant: str, user: str, topic: str | None) -> int:
        """Of one topic, its past included, or all. How many there were. Raises NotFound for a topic without any."""
        erased = int(await self._pool.fetchval(queries["erase_facts"], tenant, _known(user), topic))
        if topic is not None and not erased:
            raise NotFound("There is no fact of this topic.")
        return erased

    async def _changed(
        self, tenant: str, user: str, entries: Mapping[str, object], gone: Sequence[str], by: str
    ) -> Profile:
        raw = await self._pool.fetchval(queries["change_profile"], tenant, _known(user), jsonb(entries), gone, by)
        return _profile(tenant, user, raw)


def no_such_user() -> NotFound:
    return NotFound("There is no such user.")


def _known(user: str) -> str:
    if not is_user_id(user):
        raise no_such_user()
    return user


def _profile(tenant: str, user: str, raw: str) -> Profile:
    return Profile(tenant=tenant, user_id=user, entries=msgspec.json.decode(raw, type=dict[str, Entry]))
