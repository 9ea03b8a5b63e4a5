"""The pages of a running API, for tests: people signed in to it, and a browser that watches."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import psycopg
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from listening import PORT
from paqett import app, db, sessions
from paqett.sessions import Opening
from paqett.web.server import serve
from people import CHEAP_HASHES
from ports import free_port
from support import with_url

HERE = Path(__file__).parent / "pages"
CHROMIUM = "/usr/bin/chromium"
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1200, "height": 850}


class Member(msgspec.Struct):
    """Somebody with an account, and the token of a session of theirs."""

    id: int
    email: str
    token: str

    @property
    def csrf(self) -> str:
        return sessions.csrf_token(self.token)


class Site:
    """The API on a socket, in a thread of its own; `ahead` moves its clock."""

    def __init__(self, url: str, api_url: str = "", **environ: str) -> None:
        """`api_url` is of the role the API has where it runs; `url` the superuser's."""
        port = free_port(PORT)
        self.url = f"http://127.0.0.1:{port}"
        http = {"PAQETT_HTTP__PORT": str(port)}
        self.owner_url = url
        self.settings_of_owner = with_url(url, **{**CHEAP_HASHES, **environ})
        self.settings = with_url(api_url or url, **{**CHEAP_HASHES, **http, **environ})
        self.ahead = timedelta()
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def now(self) -> datetime:
        return app.utc_now() + self.ahead

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with app.services(self.settings, "test", self.now) as services:
            self.services = services
            self._up.set()
            await serve(services, self._stop)

    @contextmanager
    def running(self) -> Iterator["Site"]:
        self._thread.start()
        assert self._up.wait(20)
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
                assert client.get(f"{self.url}/healthz").status_code == 200
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)
            assert not self._thread.is_alive()

    def do(self, work: Callable[[db.Connection], Coroutine[Any, Any, Any]]) -> Any:
        """Something in one transaction, beside the running API."""

        async def run() -> Any:
            async with await db.connect(with_url(self.owner_url).database, "test") as conn:
                return await work(conn)

        return apart(run)

    def apart(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run it in an event loop of its own."""
        return apart(work)

    def rows(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the database, or prepare something there."""
        with psycopg.connect(self.owner_url, autocommit=True) as conn:
            found = conn.execute(text, values)
            return found.fetchall() if found.description else []

    def member(self, name: str, *, plan: str = "own", password: str | None = None) -> Member:
        """A person who is signed in; without `password` they have none that is known."""
        email = f"{name}@example.org"
        hashed = apart(lambda: self.services.hasher.hash(password)) if password else "x"
        row = self.rows(
            "INSERT INTO account (email, plan, tier, email_verified_at, password_hash)"
            " VALUES (%s, %s, %s, now(), %s) RETURNING id", email, plan, plan, hashed,
        )  # fmt: skip
        return Member(row[0][0], email, self.session(row[0][0]))

    def session(self, account_id: int) -> str:
        """A new session's token, its person proved just now."""

        async def work(conn: db.Connection) -> str:
            how = Opening("password", "127.0.0.1", "tests")
            return await sessions.open_session(conn, account_id, how, self.now(), 86_400)

        return str(self.do(work))

    @contextmanager
    def client(self, member: Member | None = None) -> Iterator[httpx.Client]:
        """A browser without scripts and eyes: it asks for pages and follows nothing."""
        cookies = {"paqett_session": member.token} if member else {}
        headers = {"Accept": "text/html", "Origin": self.url}
        with httpx.Client(base_url=self.url, cookies=cookies, headers=headers, timeout=20) as one:
            yield one

    def get(self, path: str, member: Member | None = None, **more: Any) -> httpx.Response:
        """One page."""
        with self.client(member) as client:
            return client.get(path, **more)

    def post(self, path: str, member: Member | None = None, **fields: Any) -> httpx.Response:
        """One form, with the token of the person's session."""
        with self.client(member) as client:
            token = {"csrf_token": member.csrf} if member else {}
            return client.post(path, data={**token, **fields})


def apart(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What `work` gives, in an event loop of its own: the thread's may be the browser's."""
    result: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(work()))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]


def axe_script() -> str:
    """axe-core; `make test` fetches it."""
    return (HERE / "node_modules" / "axe-core" / "axe.min.js").read_text()


class Look(msgspec.Struct, frozen=True):
    """How a page is looked at."""

    phone: bool = False
    dark: bool = False
    script: bool = True

    def __str__(self) -> str:
        words = ("phone" if self.phone else "desk", "dark" if self.dark else "light")
        return "-".join(words if self.script else (*words, "noscript"))


# every size, theme and way at least once, and no more than is needed for that
LOOKS = (Look(), Look(phone=True, dark=True), Look(script=False))


class Tab:
    """One window of the browser, used again for every page that is looked at in one way."""

    def __init__(self, browser: Browser, site: Site, look: Look) -> None:
        self.context = browser.new_context(
            viewport=PHONE if look.phone else DESK, base_url=site.url,
            color_scheme="dark" if look.dark else "light", java_script_enabled=look.script,
            is_mobile=look.phone, has_touch=look.phone,
        )  # fmt: skip
        self.context.set_default_timeout(10_000)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.extend(_complaint(message)))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))


class Eyes:
    """A browser that looks at pages of a site, and notes whatever a page must not do."""

    def __init__(self, browser: Browser, site: Site, shots: Path | None) -> None:
        self.browser, self.site, self.shots = browser, site, shots
        self._tabs: dict[Look, Tab] = {}

    def close(self) -> None:
        for tab in self._tabs.values():
            tab.context.close()

    @contextmanager
    def open(
        self, path: str, member: Member | None = None, look: Look = LOOKS[0]
    ) -> Iterator[Page]:
        """The page as somebody sees it; at the end it must have behaved."""
        if look not in self._tabs:
            self._tabs[look] = Tab(self.browser, self.site, look)
        tab = self._tabs[look]
        tab.context.clear_cookies()
        tab.said.clear()
        tab.asked.clear()
        if member:
            cookie = {"name": "paqett_session", "value": member.token, "url": self.site.url}
            tab.context.add_cookies([{**cookie, "httpOnly": True, "sameSite": "Lax"}])
        answer = tab.page.goto(path)
        assert answer is not None
        assert answer.status == 200, f"{path} answered {answer.status}"
        yield tab.page
        assert not tab.said, f"{path} said {tab.said}"
        ours = urlsplit(self.site.url).netloc
        foreign = {url for url in tab.asked if urlsplit(url).netloc != ours}
        assert not foreign, f"{path} asked {foreign}"
        _check_storage(tab.context, tab.page, script=look.script)

    def check(self, path: str, member: Member | None = None, *, name: str = "") -> None:
        """The page in every look: it fits, nothing is kept in the browser, axe finds nothing."""
        for look in LOOKS:
            with self.open(path, member, look) as page:
                self.barriers(page, look)
                self.fits(page, look)
                self.shoot(page, f"{name or path.strip('/').replace('/', '-') or 'front'}-{look}")

    def barriers(self, page: Page, look: Look = LOOKS[0]) -> None:
        """axe, for everything WCAG 2.2 AA asks that a program can see."""
        if not look.script:
            return
        # by the browser, not by the page, whose policy would forbid it
        page.evaluate(axe_script())
        found = page.evaluate(
            "() => axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
            " 'best-practice']}).then(r => r.violations.map("
            "v => v.id + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join(' | ')))"
        )
        assert not found, f"{page.url} ({look}): {found}"

    def fits(self, page: Page, look: Look) -> None:
        """Nothing sticks out to the side."""
        if look.script:
            # not against innerWidth, which grows on a phone with what sticks out
            have = (PHONE if look.phone else DESK)["width"]
            wide = page.evaluate("document.documentElement.scrollWidth") - have
            assert wide <= 0, f"{page.url} ({look}) is {wide} px too wide"

    def shoot(self, page: Page, name: str) -> None:
        """A picture for people, where a folder for them was named."""
        if self.shots is not None:
            page.screenshot(path=self.shots / f"{name}.png", full_page=True)


def _complaint(message: ConsoleMessage) -> list[str]:
    """Not that a page itself was answered 404 or 422: that may be just what is looked at."""
    of_page = message.location.get("url") == (message.page.url if message.page else None)
    if message.text.startswith("Failed to load resource") and of_page:
        return []
    return [message.text] if message.type in ("error", "warning") else []


def _check_storage(context: BrowserContext, page: Page, *, script: bool) -> None:
    names = {cookie["name"] for cookie in context.cookies()}
    assert names <= {"paqett_session"}, f"{page.url} keeps the cookies {names}"
    if script:
        # in a frame, since a page may hide its own from its scripts
        kept = page.evaluate(
            "() => { const frame = document.body.appendChild(document.createElement('iframe'));"
            " const seen = frame.contentWindow;"
            " const kept = seen.localStorage.length + seen.sessionStorage.length;"
            " frame.remove(); return kept }"
        )
        assert kept == 0, f"{page.url} keeps something in the browser"
