"""The document and its page over HTTP: open to everybody, and complete in themselves."""

import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from ingress.app import ROUTES as INGRESS_ROUTES
from ingress.app import create_app
from ingress.openapi.describe import Api
from ingress.openapi.document import build
from ingress.openapi.operations import INGRESS
from ingress.openapi.serve import Published
from ops.console.app import create_console
from shared.config import Settings

SETTINGS = Settings.read()


class Page(HTMLParser):
    """The texts of scripts and styles, and whatever makes a browser fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.document: Any = None
        self.addresses: list[str] = []
        self._open: tuple[str, dict[str, str | None]] = ("", {})
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = (tag, dict(attrs))
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "action", "srcset"}]

    def handle_endtag(self, tag: str) -> None:
        self._open = ("", {})

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open
        if attributes.get("id") == "document":
            self.document = json.loads(data)
        elif tag in self.inline:
            self.inline[tag].append(data)


@pytest.fixture(params=[create_app, create_console], ids=["ingress", "console"])
def app(request: pytest.FixtureRequest) -> Starlette:
    """Not started: neither path needs a server of ours."""
    made: Starlette = request.param(SETTINGS)
    return made


async def fetched(app: Starlette, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        response = await client.get(path)
    assert response.status_code == 200
    return response


async def test_the_page_holds_the_very_document_that_is_served(app: Starlette) -> None:
    served, page = await fetched(app, "/openapi.json"), await fetched(app, "/docs")
    assert served.headers["content-type"] == "application/json"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert Page(page.text).document == served.json()


async def test_the_page_fetches_nothing(app: Starlette) -> None:
    page = Page((await fetched(app, "/docs")).text)
    assert [address for address in page.addresses if address not in {"openapi.json", "data:,"}] == []
    for text in (*page.inline["script"], *page.inline["style"]):
        assert not re.search(r"https?://|\burl\(|@import|fetch\(|XMLHttpRequest|import\(", text)


async def test_the_page_may_run_its_own_script_and_nothing_else(app: Starlette) -> None:
    response = await fetched(app, "/docs")
    rules = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    page = Page(response.text)
    assert rules["default-src"] == "'none'"
    for kind, texts in page.inline.items():
        hashes = [f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]
        assert rules[f"{kind}-src"].split() == hashes
        assert len(hashes) == 1


def test_words_of_the_document_cannot_become_markup() -> None:
    hostile = Api(
        title="</script><script>alert(1)</script><!--",
        summary=INGRESS.summary,
        description=INGRESS.description,
        tags=INGRESS.tags,
        operations=INGRESS.operations,
        components=INGRESS.components,
        secured_by=INGRESS.secured_by,
    )
    text = Published(hostile, INGRESS_ROUTES, SETTINGS).page[0].decode()
    page = Page(text)
    assert page.document["info"]["title"] == hostile.title
    assert text.count("<script") == 2


async def test_the_document_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(*arguments: Any) -> dict[str, Any]:
        made.append("one")
        return build(*arguments)

    monkeypatch.setattr("ingress.openapi.serve.build", counted)
    app = create_app(SETTINGS)
    for path in ("/openapi.json", "/docs", "/openapi.json", "/docs"):
        await fetched(app, path)
    assert made == ["one"]
