"""`/privacy`: the policy, whose figures and names are those of the code, settings and plans."""

from typing import Any

import msgspec
from litestar import Request, get
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response import Template

from paqett import db, oauth, policy, register
from paqett.app import Services
from paqett.billing import overview
from paqett.errors import ConfigurationError, NotFound
from paqett.mail_rendering import lasting
from paqett.register import Entry, Register
from paqett.settings import Settings
from paqett.web import session_cookie
from paqett.web.oauth import HELD_S, cookie_name
from paqett.web.pages import access, view

_Request = Request[Any, Any, State]


class Processor(msgspec.Struct, frozen=True):
    """Somebody else who processes data for the installation."""

    name: str
    purpose: str
    country: str
    safeguard: str


class Cookie(msgspec.Struct, frozen=True):
    """One that is really set; `lasts_s` at most."""

    name: str
    purpose: str
    lasts_s: float


_STRIPE = Processor(
    "Stripe Payments Europe, Ltd. and Stripe, Inc.", "payments: your e-mail address, and what you"
    " tell Stripe on its own pages", "Ireland and USA", "standard contractual clauses",
)  # fmt: skip
_GITHUB = Processor(
    "GitHub, Inc.", "signing in, if you choose to: GitHub learns that you sign in here", "USA",
    "standard contractual clauses; only where you choose it",
)  # fmt: skip


def processors(settings: Settings) -> list[Processor]:
    """Those the settings name, and those that are set up. Raises `ConfigurationError`."""
    found = [_STRIPE] if settings.stripe.secret_key else []
    found += [_GITHUB] if "github" in oauth.providers(settings) else []
    for line in settings.privacy.processors.replace("\n", ";").split(";"):
        parts = [part.strip() for part in line.split("|")]
        if not line.strip():
            continue
        if len(parts) != 4:
            raise ConfigurationError(f"privacy.processors: four parts are expected in {line!r}")
        found.append(Processor(*parts))
    return found


def cookies(settings: Settings) -> list[Cookie]:
    """Both are needed for signing in, and there is no other."""
    found = [
        Cookie(
            session_cookie.cookie_name(settings), "keeps you signed in", settings.auth.session_max_s
        )
    ]
    if oauth.providers(settings):
        name = cookie_name(settings)
        found.append(Cookie(name, "while you sign in with a provider", HELD_S))
    return found


@get("/privacy", **access.public())
async def privacy(request: _Request) -> Template:
    """The version in force."""
    return await _show(request, policy.in_force_day())


@get("/privacy/versions/{version:str}", **access.public())
async def old_privacy(request: _Request, version: FromPath[str]) -> Template:
    """An earlier version, or the one in force."""
    if version not in policy.versions():
        raise NotFound("There is no such version of the privacy policy.")
    return await _show(request, version)


async def _show(request: _Request, version: str) -> Template:
    shared: dict[str, Any] = {
        "version": version,
        "in_force": policy.in_force_day(),
        "versions": policy.versions(),
        "changed": None if version == policy.FIRST else policy.read(version).changed,
    }
    if version == policy.FIRST:
        text = (policy.FOLDER / f"{policy.FIRST}.txt").read_text()
        return view.render(request, "privacy_first.html", text=text, **shared)
    services: Services = request.app.state.services
    settings = services.settings
    async with db.transaction(services.pool) as conn:
        kept = await overview.offers(
            conn, services.plans, services.first_plan, {}, billing=services.stripe is not None
        )
    return view.render(
        request, f"privacy/{version}.html", kept=kept, auth=settings.auth, own=settings.privacy,
        processors=processors(settings), cookies=cookies(settings), tls=settings.behind_tls,
        days={name: length.days for name, length in register.load().periods.items()}, **shared,
    )  # fmt: skip


def _kept(kept: Register, entry: Entry, settings: Settings) -> str:
    """How long it is kept, in words; where a setting says so, as it is set."""
    group, _, name = entry.kept.removeprefix("setting ").partition(".")
    if entry.kept.startswith("setting "):
        return lasting(getattr(getattr(settings, group), name)) + " at most"
    return register.kept_words(kept, entry)


@get("/privacy/data", **access.public())
async def data(request: _Request) -> Template:
    """The register of personal data: all that is kept, why, how long, and how it ends."""
    kept, settings = register.load(), request.app.state.services.settings
    return view.render(
        request, "privacy_data.html",
        tables=[(table, _kept(kept, table, settings)) for table in kept.tables.values()],
        stores=[(store, _kept(kept, store, settings)) for store in kept.stores.values()],
    )  # fmt: skip


HANDLERS = (privacy, old_privacy, data)
