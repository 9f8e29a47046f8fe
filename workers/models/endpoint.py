"""One URL of a provider, asked through its SDK: the SDK makes the request and judges whatever goes wrong.

Requests differ in their bodies only, and making them anew is what an SDK costs most. So the first one is the SDK's own,
and those after it are sent in its form, straight by the transport. What is no plain success is then handed to the SDK,
as if it had just sent that request and got this for an answer: errors stay its own.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import httpx2

from workers.models.http import DirectClient
from workers.models.transport import Form


class Incoming(Protocol):
    """An answer whose head has arrived; `httpx2.Response` is one."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def stream(self) -> Any: ...

    def aiter_bytes(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Endpoint:
    """`await endpoint.post(body)` is a success, or raises what the SDK raises. `sdk` is one with a fixed key."""

    def __init__(self, sdk: Any, http_client: httpx2.AsyncClient, url: str, options: Mapping[str, Any]) -> None:
        """Without a `DirectClient` (a proxy) every request is the SDK's."""
        self._sdk, self._url, self._options = sdk, url, options
        self._direct = http_client if isinstance(http_client, DirectClient) else None
        self._form: Form | None = None

    async def post(self, body: bytes) -> Incoming:
        """Its own body is still to be read."""
        direct, form = self._direct, self._form
        if direct is None:
            return await self._by_sdk(body)
        if form is None:
            response = await self._by_sdk(body)
            self._form = Form(response.request)
            return response
        try:
            answer = await direct.ask(form, body)
        except Exception as error:  # noqa: BLE001 - whatever it is, the SDK says what its callers get to see
            outcome: httpx2.Response | Exception = error
        else:
            if 200 <= answer.status < 300 and "content-encoding" not in answer.headers:
                return answer
            outcome = answer.response()
        with direct.having(outcome):
            return await self._by_sdk(body)

    async def _by_sdk(self, body: bytes) -> httpx2.Response:
        response: httpx2.Response = await self._sdk.post(
            self._url, content=body, cast_to=httpx2.Response, stream=True, options=self._options
        )
        return response
