"""A chart of a long history in a browser: how long after its query it stands there, and on zoom;
and how long each kind of page takes until something of it is painted.

One device with one metric and a reading every second. The page is opened in Chromium, the query it
makes is asked for by itself in between, and the difference is the page's own.
"""

import asyncio
from datetime import UTC, datetime
from statistics import median
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
from playwright.sync_api import Page, sync_playwright

from paqett import db, sessions
from paqett.sessions import Opening
from paqett.settings import load
from suite.form import Form
from suite.stand import Stand, stand

CHROMIUM = "/usr/bin/chromium"
ALLOWED_MS, MOST_POINTS = 1000, 2000  # the bars
_DAYS = {"full": 90, "quick": 3}
_TIMES = {"full": 7, "quick": 5}
_METRIC = "temperature"
_PAINTED = (
    "/", "/sign-in", "/docs/errors", "/privacy", "/overview", "/devices", "/devices/{device}",
    "/devices/{device}/metrics", "/devices/{device}/settings", "/explore", "/alerts",
    "/alerts/rules/new", "/notices", "/settings", "/settings/keys", "/settings/plan",
)  # fmt: skip
_DAY = """
INSERT INTO telemetry_own (time, account_id, series_id, value)
SELECT second, %s, %s, 20 + 5 * sin(extract(epoch FROM second) / 20000)
FROM generate_series(%s::timestamptz - make_interval(days => %s),
                     %s::timestamptz - make_interval(days => %s, secs => 1), '1 s') AS second
"""


def _fill(conn: psycopg.Connection, device: str, days: int) -> int:
    """A reading each second up to now; the account's id."""
    row = conn.execute(
        "INSERT INTO series (account_id, device_id, metric, kind)"
        " SELECT account_id, id, %s, 'number' FROM device WHERE id = %s RETURNING id, account_id",
        (_METRIC, device),
    ).fetchone()
    assert row is not None
    now = datetime.now(UTC)
    for day in range(days, 0, -1):
        conn.execute(_DAY, (row[1], row[0], now, day, now, day - 1))
    conn.execute("VACUUM ANALYZE telemetry_own")
    return int(row[1])


async def _session(url: str, account: int) -> str:
    settings = load({"PAQETT_DATABASE__URL": url})
    async with await db.connect(settings.database, "bench", autocommit=True) as conn:
        await conn.execute("UPDATE account SET email_verified_at = now()")
        how = Opening("password", "127.0.0.1", "bench")
        return await sessions.open_session(conn, account, how, datetime.now(UTC), 86_400)


def _drawn(page: Page, times: int) -> None:
    """Until the chart's data has come so often and stands there."""
    page.wait_for_function(
        "times => Number(document.querySelector('figure')?.dataset.loaded || 0) >= times", arg=times
    )
    page.wait_for_function("() => document.querySelector('figure canvas') !== null")


def _opened(page: Page, path: str) -> float:
    """Milliseconds from asking for the page until its chart is drawn."""
    began = perf_counter()
    page.goto(path)
    _drawn(page, 1)
    return 1000 * (perf_counter() - began)


def _zoomed(page: Page) -> float:
    """Milliseconds from letting go of the mouse until the finer chart is drawn."""
    box = page.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 50, steps=3)
    began = perf_counter()
    page.mouse.up()
    _drawn(page, 2)
    return 1000 * (perf_counter() - began)


def _slowest_move(page: Page) -> float:
    """The longest a frame took, in ms, while the mouse went over the whole chart."""
    box = page.locator(".u-over").bounding_box()
    assert box is not None
    page.evaluate(
        "() => { window.frames_ = []; let last = performance.now(); const next = (now) => {"
        " window.frames_.push(now - last); last = now; requestAnimationFrame(next); };"
        " requestAnimationFrame(next); }"
    )
    for step in range(60):
        page.mouse.move(box["x"] + box["width"] * step / 60, box["y"] + 60)
    return float(page.evaluate("Math.max(...window.frames_.slice(1))"))


_FIRST_PAINT = """() => new Promise(seen => new PerformanceObserver(
    list => list.getEntriesByName("first-contentful-paint").forEach(one => seen(one.startTime))
).observe({type: "paint", buffered: true}))"""


class _Watched:
    """A page's own query, as its browser made it, asked for again by itself."""

    def __init__(self, page: Page, token: str) -> None:
        self._asked = ""
        self._client = httpx.Client(cookies={"paqett_session": token}, timeout=120)
        page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if urlsplit(request.url).path == "/charts/data":
            self._asked = request.url

    def query(self) -> tuple[float, int]:
        """Its milliseconds, and the points of its line."""
        began = perf_counter()
        answer = self._client.get(self._asked)
        took = 1000 * (perf_counter() - began)
        return took, len(answer.raise_for_status().json()["lines"][0]["times"])


def _figure(name: str, whole: list[float], queries: list[tuple[float, int]]) -> dict[str, Any]:
    own = median(whole) - median(took for took, _ in queries)
    points = max(points for _, points in queries)
    return {
        "name": name, "times": len(whole), "ms": round(median(whole), 1),
        "query_ms": round(median(took for took, _ in queries), 1), "own_ms": round(own, 1),
        "points": points, "kept": own <= ALLOWED_MS and points <= MOST_POINTS,
    }  # fmt: skip


def _painted(page: Page, path: str) -> float:
    """Milliseconds until the browser painted something of the page, as it says itself."""
    page.goto(path)
    return float(page.evaluate(_FIRST_PAINT))  # to wait for a condition needs eval, which we forbid


def _paints(page: Page, device: str, times: int) -> list[dict[str, Any]]:
    """The median of each kind of page's first contentful paint."""
    paints = []
    for path in _PAINTED:
        found = [_painted(page, path.format(device=device)) for _ in range(times + 1)]
        paints.append({"page": path, "ms": round(median(found[1:]), 1)})  # the first fills caches
    return paints


def _measure(made: Stand, token: str, path: str, times: int) -> dict[str, Any]:
    opened: list[float] = []
    zoomed: list[float] = []
    queries: list[tuple[float, int]] = []
    finer: list[tuple[float, int]] = []
    base = f"http://127.0.0.1:{made.ports['api-bench']}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(base_url=base, viewport={"width": 1200, "height": 850})
        context.set_default_timeout(120_000)
        context.add_cookies([{"name": "paqett_session", "value": token, "url": base}])
        page = context.new_page()
        watched = _Watched(page, token)
        for number in range(times + 1):
            whole = _opened(page, path)
            asked = watched.query()
            slowest = _slowest_move(page)
            closer = _zoomed(page)
            if number:  # the first of each fills caches
                opened.append(whole)
                queries.append(asked)
                zoomed.append(closer)
                finer.append(watched.query())
        paints = _paints(page, made.devices[0].id, times)
        browser.close()
    figures = [_figure("open", opened, queries), _figure("zoom", zoomed, finer)]
    return {"figures": figures, "slowest_frame_ms": round(slowest, 1), "paints": paints}


def run(form: Form) -> dict[str, Any]:
    """Opening and zooming, each with its query beside it, and the first paint of every page."""
    days = _DAYS[form.name]
    with stand(1) as made:
        device = made.devices[0].id
        account = _fill(made.conn, device, days)
        made.start_api("bench")
        token = asyncio.run(_session(made.url, account))
        path = f"/devices/{device}?range=-{days}d"
        return {
            "days": days, "readings": days * 86_400,
            **_measure(made, token, path, _TIMES[form.name]),
        }  # fmt: skip
