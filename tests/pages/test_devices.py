"""Devices, their charts and the overview: for their owner, and for nobody else."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec
import pytest

from fleet_of_tests import device, send, wave
from site_of_tests import LOOKS, Eyes, Look, Member, Site

SCRIPTLESS = Look(script=False)


class Fleet(msgspec.Struct):
    """Three devices of the owner's: one with readings, one that is silent, one that is new."""

    boiler: str
    secret: str
    silent: str
    new: str
    view: int


@pytest.fixture(scope="module")
def fleet(site: Site, owner: Member) -> Fleet:
    boiler, secret = device(site, owner, "boiler-1", friendly_name="Boiler", tags=["cellar"])
    silent, other = device(site, owner, "attic", friendly_name="Attic", report_interval=60)
    new, _ = device(site, owner, "spare")
    wave(site, boiler, secret)
    wave(site, silent, other, hours=8, base=15.0)
    site.rows(
        "UPDATE usage_hour SET last_fresh_at = now() - interval '2 hours' WHERE device_id = %s",
        silent,
    )
    site.rows(
        "UPDATE series SET unit = '°C', label = 'Flow' WHERE device_id = %s AND metric = %s",
        boiler, "temperature",
    )  # fmt: skip
    shown = f"s={quote(boiler + ':temperature')}&s={quote(silent + ':temperature')}&range=-6h"
    made = site.post("/explore/views", owner, name="Cellar and attic", shown=shown, pinned="yes")
    assert made.status_code == 303, made.text
    row = site.rows("SELECT id FROM view WHERE account_id = %s", owner.id)
    return Fleet(boiler, secret, silent, new, row[0][0])


def paths(fleet: Fleet) -> dict[str, str]:
    """Every page that has something of the owner's, by the name of its pictures."""
    here = f"/devices/{fleet.boiler}"
    both = f"s={fleet.boiler}:temperature&s={fleet.silent}:temperature"
    return {
        "overview": "/overview",
        "devices": "/devices",
        "devices-search": "/devices?q=boil&sort=data&state=fresh",
        "devices-none": "/devices?q=nothing",
        "device-new": "/devices/new",
        "device-import": "/devices/import",
        "device": here,
        "device-table": f"{here}?view=table&range=-6h",
        "device-silent": f"/devices/{fleet.silent}",
        "device-empty": f"/devices/{fleet.new}",
        "device-settings": f"{here}/settings",
        "device-metrics": f"{here}/metrics",
        "device-metrics-none": f"/devices/{fleet.new}/metrics",
        "device-connections": f"{here}/connections",
        "device-connect": f"/devices/{fleet.new}/connect",
        "explore-nothing": "/explore",
        "explore": f"/explore?{both}&range=-6h",
        "explore-view": f"/explore?{both}&range=-6h&saved={fleet.view}",
    }


NAMES = list(paths(Fleet("a", "b", "c", "d", 1)))


@pytest.mark.parametrize("name", NAMES)
def test_every_page_stands_up_to_a_look(eyes: Eyes, owner: Member, fleet: Fleet, name: str) -> None:
    path = paths(fleet)[name]
    for look in LOOKS:
        with eyes.open(path, owner, look) as page:
            if look.script and page.locator("figure[data-chart]:not([hidden])").count():
                page.wait_for_selector("figure[data-loaded]")
            if not look.script:
                page.wait_for_load_state()
            eyes.barriers(page, look)
            eyes.fits(page, look)
            eyes.shoot(page, f"{name}-{look}")


@pytest.mark.parametrize("name", NAMES)
def test_whoever_is_signed_out_is_sent_to_sign_in(site: Site, fleet: Fleet, name: str) -> None:
    answer = site.get(paths(fleet)[name])
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in?next=/")


def test_to_another_account_none_of_it_is_there(site: Site, stranger: Member, fleet: Fleet) -> None:
    here = f"/devices/{fleet.boiler}"
    asked = [
        here, f"{here}/settings", f"{here}/metrics", f"{here}/connections", f"{here}/connect",
        f"{here}/advice", f"{here}/stream", f"{here}/readings.csv",
        f"/explore?saved={fleet.view}", f"/explore/views/{fleet.view}",
    ]  # fmt: skip
    for path in asked:
        assert site.get(path, stranger).status_code == 404, path
    sent = {
        f"{here}/settings": {"thing_name": "mine"},
        f"{here}/secret": {},
        f"{here}/delete": {"confirm": "boiler-1"},
        f"{here}/metrics": {"metric": "temperature", "kind": "text"},
        f"{here}/metrics/delete": {"metric": "temperature"},
        f"/explore/views/{fleet.view}": {"do": "rename", "new_name": "mine"},
        f"/explore/views/{fleet.view}/delete": {},
    }
    for path, fields in sent.items():
        assert site.post(path, stranger, **fields).status_code == 404, path
    empty = site.get(f"/charts/data?s={fleet.boiler}:temperature", stranger)
    assert empty.json()["lines"] == []
    assert fleet.boiler not in site.get("/devices", stranger).text


def test_forms_without_the_sessions_token_change_nothing(
    site: Site, owner: Member, fleet: Fleet
) -> None:
    with site.client(owner) as client:
        answer = client.post(f"/devices/{fleet.boiler}/delete", data={"confirm": "boiler-1"})
    assert answer.status_code == 403
    assert site.get(f"/devices/{fleet.boiler}", owner).status_code == 200


def test_a_chart_shows_gaps_zooms_and_asks_for_a_finer_bucket(
    eyes: Eyes, site: Site, owner: Member, fleet: Fleet
) -> None:
    data = site.get(f"/charts/data?s={fleet.boiler}:temperature", owner).json()
    assert None in data["lines"][0]["values"]  # the hour that is missing
    with eyes.open(f"/devices/{fleet.boiler}", owner) as page:
        page.wait_for_selector("figure[data-loaded='1'] canvas")
        figure = page.locator("figure[data-chart]")
        wide = figure.get_attribute("data-bucket")
        legend = page.locator(".u-legend .u-value")
        assert legend.first.inner_text() == "latest values"
        assert legend.last.inner_text() == "21 °C"
        stood, tall = figure.bounding_box(), page.evaluate("document.body.scrollHeight")
        box = page.locator(".u-over").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + 60, steps=4)
        page.mouse.up()
        page.wait_for_function(
            "was => document.querySelector('figure[data-chart]').dataset.bucket !== was", arg=wide
        )
        assert "from=" in page.url
        assert "from=" in page.get_attribute("a[data-follows=exact]", "href")
        # nothing moves, and what was chosen stands in the form above the chart
        assert figure.bounding_box() == stood
        assert page.evaluate("document.body.scrollHeight") == tall
        assert page.input_value("#range") == "custom"
        assert page.input_value("#from")
        # hovering tells the values there
        box = page.locator(".u-over").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60)
        page.wait_for_function(
            "() => /[0-9]/.test(document.querySelector('.u-legend .u-value').innerText)"
        )
        page.click("button[data-do=back]")
        page.wait_for_function(
            "was => document.querySelector('figure[data-chart]').dataset.bucket === was", arg=wide
        )


def test_a_gap_of_one_line_is_as_long_as_it_is_beside_another_line(
    eyes: Eyes, site: Site, owner: Member, fleet: Fleet
) -> None:
    asked = f"s={fleet.boiler}:temperature&s={fleet.silent}:temperature&range=-6h"
    data = site.get(f"/charts/data?{asked}", owner).json()
    line = data["lines"][1]
    gap = line["values"].index(None)
    inside = [
        line["times"][gap - 1] * (1 - x) + line["times"][gap + 1] * x for x in (0.3, 0.5, 0.7)
    ]
    shares = [(time - data["from"]) / (data["to"] - data["from"]) for time in inside]
    with eyes.open(f"/explore?{asked}", owner) as page:
        page.wait_for_selector("figure[data-loaded='1'] canvas")
        drawn = """share => {
            const over = document.querySelector('.u-over');
            const shown = document.querySelector('figure canvas');
            const copy = new OffscreenCanvas(shown.width, shown.height);
            const seen = copy.getContext('2d', { willReadFrequently: true });
            seen.drawImage(shown, 0, 0);
            const x = Math.round(over.offsetLeft + over.clientWidth * share);
            const { data } = seen.getImageData(x, over.offsetTop, 2, over.clientHeight);
            const orange = (at) => data[at] > 150 && data[at + 1] < 130 && data[at + 2] < 90;
            return [...data.keys()].some((at) => at % 4 === 0 && data[at + 3] > 128 && orange(at));
        }"""
        assert page.evaluate(drawn, shares[0] - 0.15)  # where it is drawn it would be seen
        assert [page.evaluate(drawn, share) for share in shares] == [False, False, False]


def test_what_is_seen_can_be_downloaded_and_is_what_the_api_answers(
    site: Site, owner: Member, fleet: Fleet
) -> None:
    asked = f"s={fleet.boiler}:temperature&range=-6h&bucket=15m&agg=max"
    data = site.get(f"/charts/data?{asked}&points=500", owner).json()
    seen = site.get(f"/charts/readings.csv?{asked}&points=500", owner)
    assert seen.headers["content-disposition"] == 'attachment; filename="chart.csv"'
    rows = list(csv.DictReader(io.StringIO(seen.text)))
    values = [value for value in data["lines"][0]["values"] if value is not None]
    assert [float(row["value"]) for row in rows] == values
    api = site.get(
        f"/api/v1/devices/{fleet.boiler}/telemetry?metrics=temperature&from=-6h&bucket=15m&agg=max",
        owner, headers={"Accept": "application/json"},
    ).json()  # fmt: skip
    assert [row["value"] for row in api["items"]][1:-1] == values[1:-1]
    every = site.get(f"/devices/{fleet.boiler}/readings.csv?range=-6h", owner)
    assert every.text.startswith("time,device,metric,value\n")
    assert every.text.count("temperature") > 60


def test_a_chart_never_loads_more_than_2000_points_a_series(
    site: Site, owner: Member, fleet: Fleet
) -> None:
    asked = f"/charts/data?s={fleet.boiler}:temperature&range=-90d&bucket=1s&points=2000"
    data = site.get(asked, owner).json()
    assert data["bucket"] != "1s"
    assert len(data["lines"][0]["times"]) <= 2000
    assert site.get(asked.replace("2000", "2001"), owner).status_code == 422


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("range=-1x", "relative like -24h"),
        ("from=yesterday", "RFC 3339"),
        ("bucket=3x", "bucket is a duration"),
        ("agg=mean", "agg is some of"),
        ("from=2026-11-25T12:00&to=2026-11-24T12:00", "from lies after to"),
    ],
)
def test_a_wrong_range_says_what_is_wrong_and_the_page_stays(
    site: Site, owner: Member, fleet: Fleet, query: str, said: str
) -> None:
    for path in (f"/devices/{fleet.boiler}?{query}", f"/explore?s={fleet.boiler}:&{query}"):
        answer = site.get(path, owner)
        assert answer.status_code == 422, path
        assert said in answer.text
        assert 'id="range"' in answer.text or "Add to the chart" in answer.text


def test_pages_of_ours_are_not_metered(site: Site) -> None:
    member = site.member("metered", plan="free")
    made, _ = device(site, member, "one")
    for path in (f"/charts/data?s={made}:", f"/devices/{made}/advice", f"/devices/{made}"):
        answer = site.get(path, member)
        assert answer.status_code == 200, path
        assert "ratelimit" not in answer.headers


def test_a_page_with_all_its_parts_is_below_100_kb(
    eyes: Eyes, site: Site, owner: Member, fleet: Fleet
) -> None:
    with eyes.browser.new_context(base_url=site.url) as context:
        cookie = {"name": "paqett_session", "value": owner.token, "url": site.url}
        context.add_cookies([cookie])
        page = context.new_page()
        tool = context.new_cdp_session(page)
        tool.send("Network.enable")
        sizes: list[int] = []
        tool.on("Network.loadingFinished", lambda said: sizes.append(said["encodedDataLength"]))
        page.goto(f"/devices/{fleet.boiler}")
        page.wait_for_selector("figure[data-loaded]")
        assert len(sizes) >= 6
        assert sum(sizes) < 100_000, sizes


def test_without_a_script_the_readings_are_a_table(eyes: Eyes, owner: Member, fleet: Fleet) -> None:
    with eyes.open(f"/devices/{fleet.boiler}?range=-6h", owner, SCRIPTLESS) as page:
        page.wait_for_url("**view=table*")
        assert "newest first: the average of every 5\u00a0minutes." in page.inner_text("main")
        assert page.locator("thead").first.inner_text().startswith("Time (UTC)")
        assert "Flow (°C)" in page.locator("thead").first.inner_text()
        page.check("input[name=s][value$=heating]")
        page.click("form.ranges button")
        assert "view=table" in page.url
        assert "heating" in page.locator("thead").first.inner_text()


def test_a_sleeping_device_with_fresh_data_is_well(site: Site) -> None:
    member = site.member("sleeper")
    made, secret = device(site, member, "sleeper")
    assert send(site, made, secret, {"temperature": 1}).status_code == 200
    site.rows("INSERT INTO broker_record (seen_at) VALUES (now()) ON CONFLICT (singleton)"
              " DO UPDATE SET seen_at = now()")  # fmt: skip
    site.rows("UPDATE device SET connection = 'offline', connection_since = now() WHERE id = %s",
              made)  # fmt: skip
    text = site.get(f"/devices/{made}", member).text
    assert 'badge good">well, asleep' in text
    site.rows("UPDATE usage_hour SET last_fresh_at = now() - interval '9 hours'"
              " WHERE device_id = %s", made)  # fmt: skip
    assert 'badge bad">gone' in site.get(f"/devices/{made}", member).text


def test_a_device_is_made_changed_and_deleted_by_forms(site: Site, owner: Member) -> None:
    made = site.post("/devices/new", owner, thing_name="pump", tags="a, b", report_interval="30")
    assert made.status_code == 200
    found = re.search(r"/devices/([\w-]+)/advice", made.text)
    assert found
    here = f"/devices/{found[1]}"
    assert "YOUR_DEVICE_SECRET" not in made.text
    assert "YOUR_DEVICE_SECRET" in site.get(f"{here}/connect", owner).text
    wrong = site.post(f"{here}/settings", owner, thing_name="pump", report_interval="often",
                      mac_address="no")  # fmt: skip
    assert wrong.status_code == 422
    assert "number of seconds" in wrong.text
    assert 'value="often"' in wrong.text
    saved = site.post(f"{here}/settings", owner, thing_name="pump 2", friendly_name="Pump")
    assert saved.headers["location"] == f"{here}/settings?done=saved"
    assert site.post("/devices/new", owner, thing_name="pump 2").status_code in (409, 422)
    rotated = site.post(f"{here}/secret", owner)
    assert 'id="device-secret"' in rotated.text
    refused = site.post(f"{here}/delete", owner, confirm="pump")
    assert refused.status_code == 422
    assert "Type pump 2 to delete it" in refused.text
    gone = site.post(f"{here}/delete", owner, confirm="pump 2")
    assert gone.headers["location"] == "/devices?done=device_deleted"
    assert site.get(here, owner).status_code == 404


def test_a_device_is_switched_off_and_on_and_takes_no_place_meanwhile(site: Site) -> None:
    member = site.member("switcher", plan="free")
    made = [device(site, member, f"d-{number}") for number in range(3)]
    site.rows("UPDATE device SET paused_at = now() WHERE id = %s", made[2][0])
    site.services.plans["free"] = msgspec.structs.replace(site.services.plans["free"], devices=2)
    path = f"/devices/{made[0][0]}"
    assert site.post(f"{path}/enabled", member, enabled="no").status_code == 303
    refused = send(site, *made[0], {"x": 1})
    assert refused.status_code == 403
    assert refused.json()["code"] == "device_disabled"
    assert "switched off" in refused.json()["detail"]
    assert "Switched off" in site.get(path, member).text
    assert send(site, *made[2], {"x": 1}).status_code == 200  # its place went on to this one
    assert site.post(f"{path}/enabled", member, enabled="yes").status_code == 303
    assert send(site, *made[0], {"x": 1}).status_code == 200
    assert "larger plan" in send(site, *made[2], {"x": 1}).json()["detail"]
    stranger = site.member("switched")
    assert site.post(f"{path}/enabled", stranger, enabled="no").status_code == 404


def test_metrics_are_named_and_deleted_by_forms(site: Site) -> None:
    member = site.member("metrics")
    made, secret = device(site, member, "one")
    assert send(site, made, secret, {"a.b": 1, "c": 2}).status_code == 200
    path = f"/devices/{made}/metrics"
    saved = site.post(path, member, metric="a.b", label="Flow", unit="l/min", kind="number")
    assert saved.status_code == 303
    assert "Flow" in site.get(f"/devices/{made}", member).text
    wrong = site.post(path, member, metric="a.b", unit="x" * 33, kind="number")
    assert wrong.status_code == 422
    assert "at most 32 characters" in wrong.text
    assert site.post(f"{path}/delete", member, metric="c").status_code == 303
    assert "<code>c</code>" not in site.get(path, member).text
    assert site.post(f"{path}/delete", member, metric="c").status_code == 404


def test_a_table_is_imported_all_or_nothing_and_its_secrets_come_once(
    site: Site, eyes: Eyes
) -> None:
    member = site.member("importer")
    rows = "thing_name,tags\nd-1,a;b\nd-2,\nd-1,\n"
    wrong = site.post("/devices/import", member, rows=rows)
    assert wrong.status_code == 422
    assert "Line 4" in wrong.text
    assert "d-2" in wrong.text
    assert "No devices yet" in site.get("/devices", member).text
    sheet = site.post("/devices/import", member, rows=rows[:-5], **{"as": "csv"})
    assert sheet.headers["content-type"].startswith("text/csv")
    made = list(csv.DictReader(io.StringIO(sheet.text)))
    assert [row["thing_name"] for row in made] == ["d-1", "d-2"]
    sent = send(site, made[0]["id"], made[0]["secret"], {"x": 1})
    assert sent.status_code == 200
    many = "thing_name\n" + "".join(f"many-{number}\n" for number in range(60))
    shown = site.post("/devices/import", member, rows=many)
    assert "60\u00a0devices made" in shown.text
    first = site.get("/devices?sort=-name", member)
    assert "page 1 of 3" in first.text
    assert "many-9<" in first.text
    assert "page 3 of 3" in site.get("/devices?sort=-name&page=3", member).text


def test_views_are_kept_renamed_pinned_and_deleted(site: Site, owner: Member, fleet: Fleet) -> None:
    shown = f"s={fleet.boiler}:humidity&range=-7d&agg=max"
    assert site.post("/explore/views", owner, name="", shown=shown).status_code == 422
    assert site.post("/explore/views", owner, name="x", shown="").status_code == 422
    made = site.post("/explore/views", owner, name="Damp", shown=shown)
    assert made.status_code == 303
    twice = site.post("/explore/views", owner, name="Damp", shown=shown)
    assert twice.status_code == 409
    assert "called Damp already" in twice.text
    assert 'value="Damp"' in twice.text
    page = site.get(made.headers["location"], owner)
    assert "Save what is seen now" in page.text
    found = re.search(r"saved=(\d+)", made.headers["location"])
    assert found
    path = f"/explore/views/{found[1]}"
    assert "Damp" not in site.get("/overview", owner).text
    assert site.post(path, owner, do="pin").status_code == 303
    assert "Damp" in site.get("/overview", owner).text
    assert site.post(path, owner, do="rename", new_name="Dampness").status_code == 303
    assert site.post(path, owner, do="save", shown=shown + "&bucket=1h").status_code == 303
    opened = site.get(path, owner).headers["location"]
    assert "bucket=1h" in opened
    assert "agg=max" in opened
    assert site.post(f"{path}/delete", owner).status_code == 303
    assert site.get(path, owner).status_code == 404


def test_dates_of_a_form_are_of_the_persons_own_time_zone(site: Site) -> None:
    member = site.member("zone")
    site.rows("UPDATE account SET time_zone = 'Asia/Tokyo' WHERE id = %s", member.id)
    made, secret = device(site, member, "one")
    at = datetime.now(UTC) - timedelta(hours=1)
    sent = {"ts": at.isoformat(), "values": {"x": 5}}
    assert send(site, made, secret, sent).status_code == 200
    local = at + timedelta(hours=9)
    span = f"range=custom&from={local - timedelta(minutes=5):%Y-%m-%dT%H:%M}"
    span += f"&to={local + timedelta(minutes=5):%Y-%m-%dT%H:%M}&view=table"
    text = site.get(f"/devices/{made}?{span}", member).text
    assert f"{local:%H:}" in text
    assert "1\u00a0row" in text
