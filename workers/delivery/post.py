"""One HTTP request to a stranger's server: bounded in time, in size, and in where it may go.

The name is resolved once and the connection goes to the address that was judged, with the name in TLS (SNI, and the
certificate is checked against it) and in `Host`. No redirect is followed, no proxy asked, no connection kept: a pool
keyed by address would hand one host's connection to another host at the same address.
"""

import asyncio
import email.utils
import ssl
import time
from collections.abc import Mapping
from ipaddress import IPv6Address

import httpx2

from shared.addresses import Address, fault_of
from workers.delivery.outcome import Delivered, Failed, Outcome
from workers.delivery.resolve import Refused, Resolver, Unresolved

CONNECT_S = 5.0
READ_BYTES = 16 * 1024
"""Of an answer; nobody needs more of it."""
_EXCERPT_CHARS = 200
_TRIED_ADDRESSES = 2


class Poster:
    def __init__(
        self, resolver: Resolver, *, timeout_s: float, allow_private: bool, tls: ssl.SSLContext | None = None
    ) -> None:
        self._resolver, self._timeout_s, self._allow_private = resolver, timeout_s, allow_private
        self._client = httpx2.AsyncClient(
            verify=tls or True,
            timeout=httpx2.Timeout(timeout_s, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
            follow_redirects=False,
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """What the server said, or what kept us from hearing it. Raises nothing but cancellation."""
        if fault := fault_of(url, allow_private=self._allow_private):
            return Failed(code="address_refused", message=f"the URL {fault}", final=True)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._sent(httpx2.URL(url), headers, body)
        except TimeoutError:
            return Failed(code="timeout", message=f"no whole answer within {self._timeout_s:g} s")
        except Unresolved as error:
            return Failed(code="name_unknown", message=str(error))
        except Refused as error:
            return Failed(code="address_refused", message=str(error))
        except (httpx2.TimeoutException, httpx2.TransportError, httpx2.InvalidURL, OSError) as error:
            return Failed(code="no_connection", message=f"{type(error).__name__}: {error}"[:_EXCERPT_CHARS])

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _sent(self, url: httpx2.URL, headers: Mapping[str, str], body: bytes) -> Outcome:
        host = url.raw_host.decode("ascii")
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = (await self._resolver.addresses(host, port))[:_TRIED_ADDRESSES]
        for address in addresses[:-1]:
            try:
                return await self._sent_to(address, url, headers, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue  # nothing was sent; perhaps its other address answers
        return await self._sent_to(addresses[-1], url, headers, body)

    async def _sent_to(self, address: Address, url: httpx2.URL, headers: Mapping[str, str], body: bytes) -> Outcome:
        pinned = url.copy_with(host=f"[{address}]" if isinstance(address, IPv6Address) else str(address))
        request = self._client.build_request(
            "POST",
            pinned,
            content=body,
            headers={
                "host": url.netloc.decode("ascii"),
                "user-agent": "Switchboard-Webhooks/1",
                "accept-encoding": "identity",
                **headers,
            },
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        response = await self._client.send(request, stream=True)
        try:
            return _outcome(response, await _excerpt(response))
        finally:
            await response.aclose()


async def _excerpt(response: httpx2.Response) -> str:
    """The beginning of the answer as one line of text."""
    raw = b""
    async for piece in response.aiter_raw():
        raw += piece
        if len(raw) >= READ_BYTES:
            break
    text = raw[:READ_BYTES].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text)[:_EXCERPT_CHARS].strip()


def _outcome(response: httpx2.Response, excerpt: str) -> Outcome:
    status = response.status_code
    if 200 <= status < 300:
        return Delivered(status)
    said = f"answered {status}" + (f": {excerpt}" if excerpt else "")
    if 300 <= status < 400:
        return Failed(code="redirect", message=f"answered {status}: redirects are not followed", status=status)
    return Failed(
        code="gone" if status == 410 else "rejected" if status < 500 else "server_error",
        message=said,
        status=status,
        retry_after_s=_retry_after_s(response.headers.get("retry-after")),
        gone=status == 410,
    )


def _retry_after_s(text: str | None) -> float | None:
    """RFC 9110 §10.2.3: seconds, or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
