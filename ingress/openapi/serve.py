"""`/openapi.json` and `/docs`: made at the first request, off the event loop, and kept as bytes.

The page holds the document and everything else it needs. Its Content-Security-Policy allows its own script and style,
by their hashes, and no request to anywhere.
"""

import asyncio
import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingress.openapi.describe import Api
from ingress.openapi.document import build
from shared.config import Settings

_SLOT = "__DOCUMENT__"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class Published:
    """An application's document as it goes on the wire."""

    def __init__(self, api: Api, routes: Sequence[BaseRoute], settings: Settings) -> None:
        self._api, self._routes, self._settings = api, routes, settings

    @cached_property
    def json(self) -> bytes:
        return msgspec.json.encode(build(self._api, self._routes, self._settings))

    @cached_property
    def page(self) -> tuple[bytes, str]:
        """The page, and the policy it keeps to."""
        template = (files("ingress.openapi") / "page.html").read_text("utf-8")
        hashes: dict[str, list[str]] = {"script": [], "style": []}
        for kind, source in _INLINE.findall(template):
            hashes[kind].append(f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'")
        policy = "; ".join(
            ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "img-src data:"]
            + [f"{kind}-src {' '.join(of_kind)}" for kind, of_kind in hashes.items()]
        )
        # Within a script element only `<` could end it; JSON may write it as an escape.
        document = self.json.decode().replace("<", r"\u003c")
        return template.replace(_SLOT, document).encode(), policy


async def openapi_json(request: Request) -> Response:
    published: Published = request.app.state.published
    body = await asyncio.to_thread(lambda: published.json)
    return Response(body, media_type="application/json", headers={"access-control-allow-origin": "*"})


async def docs(request: Request) -> Response:
    published: Published = request.app.state.published
    body, policy = await asyncio.to_thread(lambda: published.page)
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    return Response(body, media_type="text/html", headers=headers)
