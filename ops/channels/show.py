"""How channels look in a terminal: a table for people, tab-separated lines in a pipe, JSON where asked for."""

from collections.abc import Sequence

from ops.channels.records import ChannelRow, KeptRow
from ops.terminal.output import as_json, line, plain, table, when

_CHANNELS = ("channel", "tenant", "kind", "name", "agent", "version", "credentials", "replies", "webhook")
_KEPT = ("received", "reason", "times", "payload")
_SHOWN_CHARS = 200


class Printer:
    """Results, on stdout."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def channels(self, channels: Sequence[ChannelRow]) -> None:
        if self._json:
            line(as_json([channel.resource() for channel in channels]))
        else:
            table(_CHANNELS, map(_cells, channels))

    def channel(self, channel: ChannelRow) -> None:
        if self._json:
            line(as_json(channel.resource()))
            return
        for name, value in zip(_CHANNELS, _cells(channel), strict=True):
            line(f"{name:<12} {value}")
        for name, value in channel.settings.items():
            line(f"{name:<12} {plain(str(value))}")
        if (paused := channel.paused) is not None:
            line(f"{'paused':<12} since {when(paused.since_us)}: {plain(paused.code)}: {plain(paused.message)}")

    def kept(self, kept: Sequence[KeptRow]) -> None:
        if self._json:
            line(as_json([one.resource() for one in kept]))
        else:
            table(_KEPT, ([when(one.received_us), plain(one.reason), str(one.times), _payload(one)] for one in kept))


def _cells(channel: ChannelRow) -> list[str]:
    held = ",".join(f"{name}×{count}" if count > 1 else name for name, count in channel.credentials.items())
    webhook = str(channel.resource()["webhook"])
    names = [channel.id, channel.tenant, channel.kind, plain(channel.name), channel.agent]
    replies = "go out" if channel.paused is None else f"paused: {plain(channel.paused.code)}"
    return [*names, str(channel.version), held, replies, webhook]


def _payload(kept: KeptRow) -> str:
    return plain(as_json(kept.payload))[:_SHOWN_CHARS]
