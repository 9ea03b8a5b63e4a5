"""From sign-up to the first point on the chart, and what a first run says while it waits."""

import re
import time

from fleet_of_tests import device, send
from people import PASSWORD, mailed
from site_of_tests import Eyes, Site, apart

OWN_SHARE_S = 2.0


def test_from_sign_up_to_the_first_point_on_the_chart(eyes: Eyes, site: Site) -> None:
    email = "new@example.org"
    began = time.monotonic()
    with eyes.open("/sign-up") as page:
        page.fill("#email", email)
        page.fill("#password", PASSWORD)
        page.check("input[name=age_confirmed]")
        page.click("button:has-text('Make my account')")
        page.wait_for_url("**/sign-up/sent")
        token = apart(lambda: mailed(site.settings, email, "verify_email"))
        page.goto(f"/verify-email?token={token}")
        page.click("main button")
        page.wait_for_url("**/sign-in*")
        page.fill("#email", email)
        page.fill("#password", PASSWORD)
        page.click("main button:has-text('Sign in')")
        page.wait_for_url("**/start")
        page.click("button:has-text('Make my first device and key')")
        page.wait_for_selector("#device-secret")
        eyes.barriers(page)
        eyes.shoot(page, "start-waiting")
        secret = page.inner_text("#device-secret").strip()
        key = page.inner_text("#api-key").strip()
        assert key.startswith("pqt_")
        line = page.text_content("#line-mosquitto_pub")
        found = re.search(r"-u (\S+) -P (\S+)", line or "")
        assert found
        device_id = found[1]
        assert found[2] == secret
        # every way to send is there, one at a time
        page.click("label[for=way-python]")
        assert page.is_visible("#line-python")
        assert not page.is_visible("#line-mosquitto_pub")
        assert page.is_hidden("figure[data-chart]")
        page.wait_for_function(
            "() => document.querySelector('.advice').innerText.includes('waiting')"
        )
        refused = send(site, device_id, secret, {"temperature": [1]})
        assert refused.status_code >= 400
        page.wait_for_selector(".came li.bad")
        assert "bad_value" in page.inner_text(".came")
        sent = time.monotonic()
        assert send(site, device_id, secret, {"temperature": 21.5}).status_code == 200
        page.wait_for_selector(".came li.good")
        assert "temperature = 21.5" in page.inner_text(".came")
        page.wait_for_selector("figure[data-loaded] canvas")
        page.wait_for_function("() => document.querySelector('figure').dataset.points >= 1")
        shown = time.monotonic()
        assert shown - sent < OWN_SHARE_S
        assert shown - began < 120
        # the next one goes onto the same chart
        assert send(site, device_id, secret, {"temperature": 22.5}).status_code == 200
        page.wait_for_function("() => document.querySelectorAll('.came li.good').length >= 2")
        legend = "() => document.querySelector('.u-legend').innerText.includes('22.5')"
        page.wait_for_function(legend)
        eyes.shoot(page, "start-arrived")
        eyes.barriers(page)
    with site.client() as client:
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        answer = client.get(f"/api/v1/devices/{device_id}/telemetry?from=-1h", headers=headers)
        assert [row["value"] for row in answer.json()["items"]] == [21.5, 22.5]


def test_looking_makes_nothing_and_a_second_press_makes_no_second_device(site: Site) -> None:
    member = site.member("presser")
    assert site.get("/overview", member).headers["location"] == "/start"
    for _ in range(2):
        assert "Make my first device and key" in site.get("/start", member).text
    assert site.rows("SELECT 1 FROM device WHERE account_id = %s", member.id) == []
    first = site.post("/start", member)
    assert 'id="device-secret"' in first.text
    again = site.post("/start", member)
    assert again.headers["location"] == "/start"
    seen = site.get("/start", member)
    assert 'id="device-secret"' not in seen.text
    assert "YOUR_DEVICE_SECRET" in seen.text
    count = "SELECT count(*) FROM device WHERE account_id = %s"
    assert site.rows(count, member.id) == [(1,)]


def test_the_box_says_why_nothing_comes_without_a_script_too(site: Site) -> None:
    member = site.member("waiter")
    made, secret = device(site, member, "one")
    site.rows("INSERT INTO broker_record (seen_at) VALUES (now()) ON CONFLICT (singleton)"
              " DO UPDATE SET seen_at = now()")  # fmt: skip
    path = f"/devices/{made}/connect"
    assert "Nothing has been heard" in site.get(path, member).text

    def event(kind: str, reason: str | None) -> None:
        site.rows(
            "INSERT INTO device_event (account_id, device_id, time, kind, reason, ip)"
            " VALUES (%s, %s, clock_timestamp(), %s, %s, '192.0.2.7')",
            member.id, made, kind, reason,
        )  # fmt: skip

    event("refused", "unknown id or wrong secret")
    text = site.get(path, member).text
    assert "sign-in refused" in text
    assert "192.0.2.7" in text
    event("taken_over", "another connection signed in")
    assert "a device of its own" in site.get(path, member).text
    event("connected", None)
    event("connected", None)
    site.rows("UPDATE device SET connection = 'online', connection_since = now() WHERE id = %s",
              made)  # fmt: skip
    assert f"nothing has come under paqett/v1/{made}/telemetry" in site.get(path, member).text
    assert send(site, made, secret, {"a": [1]}).status_code >= 400
    text = site.get(path, member).text
    assert "bad_value" in text
    assert send(site, made, secret, {"a": 1}).status_code == 200
    assert "data arrives" in site.get(path, member).text
