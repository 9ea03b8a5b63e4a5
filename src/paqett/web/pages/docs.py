"""`/docs`: what stands in `docs/`, as pages; `/docs/errors` is where a problem's `type` leads."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, get
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response import Template
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from paqett.errors import NotFound
from paqett.settings import docs_dir
from paqett.web.pages import access, view

_Request = Request[Any, Any, State]
PEOPLE = {
    "ingest": "Topics, payloads, times and limits, over MQTT and HTTP.",
    "queries": "Raw and by the hour, as JSON, CSV or NDJSON, and what is latest.",
    "accounts": "Registering, sessions, GitHub, API keys and their scopes, live streams.",
    "alerts": "Rules, their states, and webhooks with their signatures.",
    "grafana": "Dashboards over HTTP with a key, or in SQL with a login of your own.",
    "billing": "What a plan allows, buying one, and what a change does.",
    "privacy": "What is kept, exporting all of it, and how each promise is shown to be kept.",
    "erasure": "Deleting an account or a device, undoing it, and the receipt.",
    "errors": "Every code there is, and what to do about it.",
}
"""What people read who use an installation, in this order."""
OPERATORS = {
    "exposing": "TLS, proxies, limits of the listener, and what people must be told.",
    "brokers": "Mosquitto, RabbitMQ where nothing acknowledged may be lost, and EMQX.",
    "backup": "One file of the whole database, and its return without what was erased since.",
    "mail": "What people are told, SMTP, jobs, and what is kept how long.",
    "admin-sql": "Views of all accounts: counts, times and sizes.",
    "asvs": "Every requirement of OWASP ASVS, and the test that shows it.",
}
"""And those who run one."""
_PAGE = re.compile(r"^([a-z-]+)\.md(#.*)?$")
_STATUS = re.compile(r"^([1-5]\d\d)\.", re.MULTILINE)
_NOT_IN_IDS = re.compile(r"[^a-z0-9_ -]")


class Doc(msgspec.Struct, frozen=True):
    """A page of the docs; `about` is empty where nobody has said what it is."""

    name: str
    title: str
    about: str
    html: Markup


@cache
def docs() -> dict[str, Doc]:
    """Every page by its name, read when the first is asked for."""
    return {path.stem: _read(path) for path in sorted(docs_dir().glob("*.md"))}


def _read(path: Path) -> Doc:
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    # a status that begins a line is not the number of an item
    tokens = reader.parse(_STATUS.sub(r"\1\\.", path.read_text()))
    title = next((_plain(tokens[n + 1]) for n, t in enumerate(tokens) if t.tag == "h1"), path.stem)
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(_plain(tokens[number + 1])))
        elif token.type == "inline":
            _link(token)
    html = reader.renderer.render(tokens, reader.options, {})
    # a wide table scrolls by itself, and by the keyboard too
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    html = html.replace("</table>", "</table></div>").replace("<pre>", '<pre tabindex="0">')
    about = {**PEOPLE, **OPERATORS}.get(path.stem, "")
    return Doc(path.stem, title, about, Markup(html))  # noqa: S704 - our own files, HTML is off


def anchor(heading: str) -> str:
    """A heading's place on its page, as problems and repositories write it."""
    return _NOT_IN_IDS.sub("", heading.lower()).strip().replace(" ", "-")


def _plain(token: Token) -> str:
    return "".join(part.content for part in token.children or [token])


def _link(token: Token) -> None:
    """Pages name each other as files; here they are addresses."""
    for part in token.children or []:
        target = str(part.attrGet("href") or "") if part.type == "link_open" else ""
        if found := _PAGE.match(target):
            part.attrSet("href", f"/docs/{found[1]}{found[2] or ''}")


@get("/docs", **access.public())
async def index(request: _Request) -> Template:
    """All pages."""
    known = docs()
    return view.render(
        request, "docs.html",
        people=[known[name] for name in PEOPLE if name in known],
        operators=[known[name] for name in OPERATORS if name in known]
        + [doc for name, doc in known.items() if name not in (*PEOPLE, *OPERATORS)],
    )  # fmt: skip


@get("/docs/{name:str}", **access.public())
async def page(request: _Request, name: FromPath[str]) -> Template:
    """One page."""
    doc = docs().get(name)
    if doc is None:
        raise NotFound("There is no such page in the docs.")
    return view.render(request, "doc.html", doc=doc)


HANDLERS = (index, page)
