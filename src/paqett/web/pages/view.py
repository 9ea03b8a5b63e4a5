"""How pages are rendered: the template engine, what every page knows, and answers to forms."""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import MediaType, Request
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Redirect, Template
from litestar.template import TemplateConfig

from paqett import __version__, oauth
from paqett.accounts import Profile
from paqett.app import Services
from paqett.web import assets
from paqett.web.pages import access, columns, formats, health, plots, sparks
from paqett.web.pages.forms import Form
from paqett.web.pages.words import DONE
from paqett.web.session_cookie import session_cookie

FOLDER = Path(__file__).parents[1] / "templates"
HOME = "/overview"
"""Where people land after signing in."""
SECTIONS = (
    ("Overview", "/overview"),
    ("Devices", "/devices"),
    ("Explore", "/explore"),
    ("Alerts", "/alerts"),
    ("Notices", "/notices"),
    ("Plan", "/settings/plan"),
    ("Settings", "/settings"),
)
"""The main navigation: what is longer is looked for first."""
_Request = Request[Any, Any, Any]


class View(msgspec.Struct, frozen=True):
    """What the layout and the macros know on every page."""

    person: Profile | None
    csrf: str
    path: str
    section: str
    now: datetime
    time_zone: str
    done: str | None
    providers: list[str]
    billing: bool
    registration: bool
    needs_proof: bool
    version: str = __version__


@cache
def environment() -> Environment:
    """Jinja as the pages use it: escaping is on, and a name that is missing is an error."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"static": assets.url, "sections": SECTIONS}
    made.globals |= {"buckets": plots.BUCKETS, "aggregates": plots.AGGREGATES}
    made.filters |= formats.FILTERS
    made.filters |= {"health": health.health, "event": health.event, "spark": sparks.spark}
    made.filters |= {"field_time": plots.field_time, "labelled": columns.labelled}
    return made


def template_config() -> TemplateConfig[JinjaTemplateEngine]:
    """What Litestar is told."""
    return TemplateConfig(instance=JinjaTemplateEngine.from_environment(environment()))


def render(
    request: _Request, template: str, *, status: int = 200, form: Form | None = None,
    headers: dict[str, str] | None = None, **values: Any,
) -> Template:  # fmt: skip
    """The page `template`; with what was wrong where its form was refused."""
    shown = form or Form()
    status = shown.status if status == 200 else status
    context = {"view": _view(request), "form": shown, **values}
    sent = {"Cache-Control": "no-store", **shown.headers, **(headers or {})}
    return Template(
        template, context=context, status_code=status, media_type=MediaType.HTML,
        headers=sent, cookies=_cookies(request),
    )  # fmt: skip


def done(request: _Request, path: str, word: str | None = None, **more: str) -> Redirect:
    """After a form: to a page that can be loaded again, which says what was done."""
    asked = {**({"done": word} if word else {}), **more}
    target = f"{path}{'&' if '?' in path else '?'}{urlencode(asked)}" if asked else path
    return Redirect(target, status_code=303, cookies=_cookies(request))


def sign_in_first(request: _Request) -> Redirect:
    """To the sign-in, and back here afterwards where here is a page that can be opened."""
    query = request.scope["query_string"].decode("latin-1")
    path = request.scope["path"] + (f"?{query}" if query else "")
    back = f"?next={quote(path)}" if request.method in ("GET", "HEAD") and path != "/" else ""
    return Redirect(f"/sign-in{back}", status_code=303)


def away(request: _Request, url: str, name: str, cookies: list[Any] | None = None) -> Template:
    """To a page of somebody else's. Not by a redirect: the policy keeps our forms on our own site,
    and browsers hold it against where a form's answer leads, too."""
    answer = render(request, "away.html", url=url, name=name)
    answer.cookies.extend(cookies or [])
    return answer


def _cookies(request: _Request) -> list[Any]:
    token = access.renewed(request)
    settings = request.app.state.services.settings
    return [session_cookie(settings, token)] if token else []


def _view(request: _Request) -> View:
    services: Services = request.app.state.services
    settings = services.settings
    person = access.person_of(request)
    path = request.scope["path"]
    return View(
        person=person,
        csrf=access.csrf_of(request),
        path=path,
        section=_section(path),
        now=services.clock(),
        time_zone=person.time_zone if person else "UTC",
        done=DONE.get(request.query_params.get("done", "")),
        providers=sorted(oauth.providers(settings)),
        billing=services.stripe is not None,
        registration=settings.auth.open_registration,
        needs_proof=access.needs_proof(request),
    )


def _section(path: str) -> str:
    """Which entry of the navigation a path lies in."""
    fits = [where for _, where in SECTIONS if path == where or path.startswith(f"{where}/")]
    return max(fits, key=len, default="")
