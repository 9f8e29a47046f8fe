"""What goes out: deliveries, the endpoints and channels they go through, mail. All of it belongs to all tenants, so it
is looked at through switchboard_ops; without that login there is nothing here.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import msgspec

from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import OPS, Servers
from sql import queries
from workers.replies.claimed import ChannelRow
from workers.replies.opened import Channels, OpenChannel, Unusable

LATE_S = 30.0
"""A delivery process looks several times a second."""
PAGE = 500
MOST_CHANNELS = 20_000
"""Opened one by one: a bounded look."""
_MENDS = {
    "channel_unreadable": "add the key that sealed it to SWITCHBOARD_CREDENTIALS_KEY, or: switchboard channels set {}",
    "no_credential": "switchboard channels set {}",
    "unknown_kind": "deploy a version that knows it, or: switchboard channels remove {}",
}


async def check_deliveries(servers: Servers) -> list[Finding]:
    name, login = "deliveries", servers.login(OPS)
    lag_s = float(await login.fetchval(queries["delivery_lag"]))
    counts: Counter[str] = Counter()
    for row in await login.fetch(queries["delivery_load"]):
        counts[row["state"]] += row["deliveries"]
    what = f"{counts.total()} under way or waiting"
    if lag_s > LATE_S:
        said = f"{what}; what is due has been left alone for {lag_s:.0f} s"
        mend = "switchboard delivery   # or more of them, or a higher SWITCHBOARD_DELIVERY_CONCURRENCY"
        found = [fault(name, said, mend)]
    else:
        found = [ok(name, what)]
    if parked := counts["parked"]:
        said = f"{parked} deliveries failed for so long that those behind them pass"
        found.append(warning(f"{name}.parked", said, "switchboard deliveries list --state parked"))
    return found


async def check_endpoints(servers: Servers) -> list[Finding]:
    ways = await servers.login(OPS).fetchrow(queries["closed_ways"])
    if not ways["endpoints"]:
        return [ok("endpoints", "none was disabled because nothing got through")]
    (row,) = await servers.login(OPS).fetch(queries["disabled_endpoints"], 1)
    what = (
        f"{ways['endpoints']} endpoints were disabled because nothing got through, the last one {row['endpoint']} "
        f"of {row['tenant']} ({row['why']})"
    )
    return [warning("endpoints", what, f"once it answers: switchboard endpoints set {row['endpoint']} --enable")]


async def check_channels(servers: Servers) -> list[Finding]:
    """Each is opened as the delivery process opens it: what that cannot open cannot answer either."""
    seen, deaf, closed = 0, list[str](), defaultdict[str, list[str]](list)
    async for channel, opened in _opened(servers):
        seen += 1
        if isinstance(opened, Unusable):
            closed[opened.code].append(f"{channel}: {opened}")
        elif opened.adapter.kind == "twilio" and opened.status_url is None:
            deaf.append(channel)
    found = []
    for code, ones in closed.items():
        what = f"{len(ones)} of {seen} channels cannot send, e.g. {ones[0]}"
        found.append(fault("channels", what, _MENDS[code].format(ones[0].partition(":")[0])))
    if deaf:
        what = f"{len(deaf)} channels of Twilio hear of no statuses, e.g. {deaf[0]}"
        found.append(warning("channels.statuses", what, "SWITCHBOARD_PUBLIC_URL=https://chat.example.com"))
    return [*found, *await _paused(servers)] or [ok("channels", f"{seen} channels can send")]


async def _opened(servers: Servers) -> AsyncIterator[tuple[str, OpenChannel | Unusable]]:
    """Each channel's id, and the channel or why it is none."""
    channels, after, seen = Channels(servers.settings), "", 0
    while seen < MOST_CHANNELS and (rows := await servers.login(OPS).fetch(queries["sealed_channels"], after, PAGE)):
        for row in rows:
            settings = msgspec.json.decode(row["settings"])
            one = ChannelRow(id=row["channel"], kind=row["kind"], settings=settings, sealed=row["sealed"])
            try:
                yield one.id, channels.open(row["tenant"], one)
            except Unusable as error:
                yield one.id, error
        after, seen = rows[-1]["channel"], seen + len(rows)


async def _paused(servers: Servers) -> list[Finding]:
    rows = await servers.login(OPS).fetch(queries["paused_channels"], PAGE)
    if not rows:
        return []
    row = rows[0]
    what = f"{len(rows)} channels are paused, e.g. {row['channel']} of {row['tenant']} ({row['code']})"
    mend = f"mend it at the provider's, then: switchboard channels resume {row['channel']}"
    return [warning("channels.paused", what, mend)]


async def check_mail(servers: Servers) -> list[Finding]:
    rules = int(await servers.login(OPS).fetchval(queries["alerts_by_mail"]))
    if rules and servers.settings.smtp_url is None:
        what = f"{rules} alerts tell somebody by e-mail, and no server is known"
        return [fault("mail", what, "SWITCHBOARD_SMTP_URL=smtp://user:password@mail.example.org:587")]
    return [ok("mail", f"{rules} alerts tell somebody by e-mail")]
