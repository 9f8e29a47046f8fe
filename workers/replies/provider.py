"""One request to a messenger's API. What matters is whether the provider may have taken it.

The hosts are the adapters' own, or the operator's (`SWITCHBOARD_CHANNEL_URLS`): no tenant chooses where it goes, so
connections are kept. No redirect is followed and no proxy asked.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from shared.channels.api import Call

CONNECT_S = 5.0
READ_BYTES = 64 * 1024
_EXCERPT_CHARS = 200


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Unreached:
    """The request never left: nothing can have been taken."""

    message: str


@dataclass(frozen=True, slots=True)
class Cut:
    """It left and no answer came: it may have been taken."""

    message: str


Heard = Answered | Unreached | Cut
_NEVER_LEFT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class Provider:
    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=50),
            trust_env=False,
            follow_redirects=False,
        )

    async def send(self, call: Call) -> Heard:
        """Raises ValueError (also httpx2.InvalidURL) for a call that cannot be put on the wire."""
        request = self._client.build_request(
            call.method,
            call.url,
            json=call.body,
            data=call.form,
            headers={"user-agent": "Switchboard/1", "accept-encoding": "identity", **call.headers},
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._answered(request)
        except _NEVER_LEFT as error:
            return Unreached(_words(error))
        except httpx2.LocalProtocolError as error:  # a credential with a line break in it, say
            raise ValueError(str(error)) from error
        except TimeoutError:
            return Cut(f"no whole answer within {self._timeout_s:g} s")
        except (httpx2.TransportError, OSError) as error:
            return Cut(_words(error))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _answered(self, request: httpx2.Request) -> Answered:
        response = await self._client.send(request, stream=True)
        try:
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) >= READ_BYTES:
                    break
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answered(response.status_code, headers, body[:READ_BYTES])
        finally:
            await response.aclose()


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_EXCERPT_CHARS]
