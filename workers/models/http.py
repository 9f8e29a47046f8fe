"""What both provider SDKs send their requests through: one client per provider and process.

Timeouts: `CONNECT_S` to connect, `idle_timeout_s` between two pieces of an answer; the bound of the whole call is the
caller's (`sse.read`). There is no limit on connections: how many calls run at once is the worker's decision.
"""

import hashlib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import httpx2

from workers.models.transport import Answer, Form, ModelTransport

CONNECT_S = 5.0
_MAX_USER_CHARS = 64
_MOST_KINDS = 64
"""Kinds of requests whose form is kept; there are one or two."""

_had: ContextVar[httpx2.Response | Exception | None] = ContextVar("had", default=None)
"""What became of the request that is about to be sent: it was sent already."""

_Kind = tuple[str, str, tuple[tuple[str, str], ...], tuple[float | None, ...]]
"""Method, URL, headers, time-outs."""


def open_client(idle_timeout_s: float) -> httpx2.AsyncClient:
    """Straight to our transport; where the environment names a proxy, by httpx2's own way and through its pool."""
    timeout = httpx2.Timeout(idle_timeout_s, connect=CONNECT_S)
    headers = {"accept-encoding": "identity"}  # a compressed stream arrives late and costs CPU
    if not urllib.request.getproxies():
        return DirectClient(ModelTransport(), timeout=timeout, headers=headers)
    return httpx2.AsyncClient(
        mounts={"all://": ModelTransport()},  # below its routing, so that NO_PROXY keeps working
        timeout=timeout,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30.0),
        headers=headers,
    )


class DirectClient(httpx2.AsyncClient):
    """For the same few requests over and over, but for their bodies: all else is built as httpx2 does it, once.

    Nothing stands between it and its transport: no redirects, cookies, authentication, hooks. A response that is not
    read as a stream is read whole, as ever.
    """

    def __init__(self, transport: ModelTransport, **options: Any) -> None:
        super().__init__(transport=transport, trust_env=False, **options)
        self._straight: Final = transport
        self._forms: dict[_Kind, httpx2.Request] = {}

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        match options:
            case {"content": bytes(content), "headers": list(headers), "timeout": httpx2.Timeout() as timeout}:
                unusual = options.get("params") or options.get("files")
            case _:
                unusual = True
        if unusual:
            return super().build_request(method, url, **options)
        kind = (method, str(url), tuple(headers), (timeout.connect, timeout.read, timeout.write, timeout.pool))
        form = self._forms.get(kind)
        if form is None:
            form = super().build_request(method, url, **{**options, "content": b"{}"})
            if len(self._forms) < _MOST_KINDS:
                self._forms[kind] = form
        return _Like(form, content)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        had = _had.get()
        if isinstance(had, Exception):
            raise had
        self._check_open()
        response = had or await self._straight.handle_async_request(request)
        response.request = request
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response

    async def ask(self, form: Form, content: bytes) -> Answer:
        """The answer to a request like one that was sent before. Raises httpx2's exceptions."""
        self._check_open()
        return await self._straight.ask(form, content)

    @contextmanager
    def having(self, outcome: httpx2.Response | Exception) -> Iterator[None]:
        """What is sent within the block, by this task, is not: this has become of it."""
        token = _had.set(outcome)
        try:
            yield
        finally:
            _had.reset(token)

    def _check_open(self) -> None:
        if self.is_closed:
            raise RuntimeError("the client has been closed")


class _Like(httpx2.Request):
    """A request like `form`, with another body."""

    def __init__(self, form: httpx2.Request, content: bytes) -> None:
        self.method, self.url, self.extensions = form.method, form.url, form.extensions
        self.headers = httpx2.Headers(form.headers, encoding="iso-8859-1")  # named, it need not be guessed each time
        self.headers["Content-Length"] = str(len(content))
        self.stream = httpx2.ByteStream(content)
        self._body = content

    @property
    def content(self) -> bytes:
        return self._body

    def read(self) -> bytes:
        return self._body

    async def aread(self) -> bytes:
        return self._body


def absolute(base_url: httpx2.URL, path: str) -> str:
    """The URL of `path`, as both SDKs make it of their base URL for every call anew."""
    return str(base_url.copy_with(raw_path=base_url.raw_path + path.encode("ascii")))


def end_user(user: str) -> str:
    """An end-user id the providers take: at most 64 characters, a longer one becomes its SHA-256."""
    return user if len(user) <= _MAX_USER_CHARS else hashlib.sha256(user.encode()).hexdigest()
