"""Whether an address may be called, asked when somebody registers it; asked again before every request to it."""

from collections.abc import Callable

from shared.addresses import fault_of
from shared.config import Settings
from shared.errors import InvalidRequest
from workers.delivery.resolve import Lookup, Refused, Resolver, Unresolved

THREADS = 8


class Gate:
    def __init__(self, settings: Settings, lookup: Lookup | None = None) -> None:
        self._allow_private = settings.delivery_allow_private
        self._resolver = Resolver(allow_private=self._allow_private, threads=THREADS, lookup=lookup)
        self.close: Callable[[], None] = self._resolver.close

    async def check(self, url: str, field: str) -> None:
        """Raises InvalidRequest, which says why."""
        fault = fault_of(url, allow_private=self._allow_private)
        if fault is None:
            host, port = _place(url)
            try:
                await self._resolver.addresses(host, port)
            except Unresolved:
                fault = "must have a host whose name can be resolved"
            except Refused:
                fault = "must not lead to a private address"
        if fault:
            raise InvalidRequest(
                "The request has faults; `errors` lists all of them.", faults=[{"field": field, "message": fault}]
            )


def _place(url: str) -> tuple[str, int]:
    """Host as name servers know it, and port."""
    import httpx2  # noqa: PLC0415 - the one reader of URLs that knows IDNA, and heavy to load for `--help`

    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        return "", 0
    return parts.raw_host.decode("ascii"), parts.port or (443 if parts.scheme == "https" else 80)
