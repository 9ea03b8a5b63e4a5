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
_INDEX = "README"
_PAGE = re.compile(r"^([a-z-]+|README)\.md(#.*)?$")
_STATUS = re.compile(r"^([1-5]\d\d)\.", re.MULTILINE)
_NOT_IN_IDS = re.compile(r"[^a-z0-9_ -]")


class Doc(msgspec.Struct, frozen=True):
    """A page of the docs."""

    title: str
    html: Markup


@cache
def docs() -> dict[str, Doc]:
    """Every page but the index by its name, read when the first is asked for."""
    paths = sorted(docs_dir().glob("*.md"))
    return {path.stem: _read(path) for path in paths if path.stem != _INDEX}


@cache
def _index() -> Doc:
    return _read(docs_dir() / f"{_INDEX}.md")


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
    return Doc(title, Markup(html))  # noqa: S704 - our own files, HTML is off


def anchor(heading: str) -> str:
    """A heading's place on its page, as problems and repositories write it."""
    return _NOT_IN_IDS.sub("", heading.lower()).strip().replace(" ", "-")


def _plain(token: Token) -> str:
    return "".join(part.content for part in token.children or [token])


def _link(token: Token) -> None:
    """Pages name each other as files; here they are addresses. What is not shipped is named."""
    named = False
    for part in token.children or []:
        target = str(part.attrGet("href") or "") if part.type == "link_open" else ""
        if found := _PAGE.match(target):
            path = "/docs" if found[1] == _INDEX else f"/docs/{found[1]}"
            part.attrSet("href", f"{path}{found[2] or ''}")
        elif target.startswith("../"):
            part.tag, part.attrs, named = "span", {}, True
        elif part.type == "link_close" and named:
            part.tag, named = "span", False


@get("/docs", **access.public())
async def index(request: _Request) -> Template:
    """What there is, as `docs/README.md` has it."""
    return view.render(request, "doc.html", doc=_index(), index=True)


@get("/docs/{name:str}", **access.public())
async def page(request: _Request, name: FromPath[str]) -> Template:
    """One page."""
    doc = docs().get(name)
    if doc is None:
        raise NotFound("There is no such page in the docs.")
    return view.render(request, "doc.html", doc=doc, index=False)


HANDLERS = (index, page)
