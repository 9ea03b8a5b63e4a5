"""The pages of somebody's account: for them, not for others, and nobody who is signed out."""

import re
from datetime import timedelta
from typing import Any

import httpx
import pytest

from paqett import notices
from paqett.web.pages import view
from people import PASSWORD
from site_of_tests import Eyes, Member, Site

PAGES = (
    "/settings", "/settings/keys", "/settings/grafana", "/settings/plan", "/alerts",
    "/alerts/rules/new", "/alerts/rules/new?kind=no_data", "/alerts/rules/new?kind=offline",
    "/alerts/channels", "/notices",
)  # fmt: skip
FORMS = (
    "/settings/profile", "/settings/email", "/settings/password", "/settings/notifications",
    "/settings/sessions/end", "/settings/keys", "/settings/keys/1/delete", "/settings/grafana",
    "/settings/plan/checkout", "/settings/plan/portal", "/alerts/rules/new", "/alerts/rules/1",
    "/alerts/rules/1/delete", "/alerts/channels", "/alerts/channels/1/delete", "/sign-out",
)  # fmt: skip


def api(site: Site, member: Member, method: str, path: str, body: Any = None) -> Any:
    headers = {"X-CSRF-Token": member.csrf, "Accept": "application/json"}
    with site.client(member) as client:
        answer = client.request(method, f"/api/v1{path}", json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


@pytest.fixture(scope="module")
def owner(site: Site) -> Member:
    """Somebody with a device, readings, rules, a key, a webhook and notices."""
    ada = site.member("ada", plan="paid", password=PASSWORD)
    device = api(site, ada, "POST", "/devices", {"thing_name": "cellar", "friendly_name": "Cellar"})
    stamps = [site.now() - timedelta(minutes=m) for m in (50, 40, 30, 20, 10, 0)]
    rows = [
        {"ts": t.isoformat(), "temperature": v}
        for t, v in zip(stamps, (21, 35, 36, 22, 34, 21), strict=True)
    ]
    api(site, ada, "POST", f"/devices/{device['id']}/telemetry", rows)
    rule = {
        "name": "Too warm",
        "kind": "threshold",
        "metric": "temperature",
        "operator": ">",
        "threshold": 30,
    }
    api(site, ada, "POST", "/alert-rules", rule)
    api(site, ada, "POST", f"/devices/{device['id']}/telemetry", {"temperature": 33.5})
    api(site, ada, "POST", "/api-keys", {"name": "Cellar flow", "scopes": ["telemetry:read"]})

    async def told(conn: Any) -> None:
        await notices.notify(
            conn,
            ada.id,
            "new_sign_in",
            ip="203.0.113.9",
            agent="Firefox",
            method="password",
            time=site.now().isoformat(),
        )

    site.do(told)
    return ada


@pytest.mark.parametrize("path", PAGES)
def test_every_page_stands_up_to_a_look(eyes: Eyes, owner: Member, path: str) -> None:
    eyes.check(path, owner)


def test_pages_of_an_empty_account_say_what_to_do_next(site: Site, stranger: Member) -> None:
    for path, words in (
        ("/settings/keys", "No keys yet"),
        ("/alerts", "Make your first rule"),
        ("/notices", "Make an alert rule"),
        ("/settings/plan", "Nothing was sent today"),
    ):
        assert words in site.get(path, stranger).text


def test_an_empty_account_stands_up_to_a_look(eyes: Eyes, stranger: Member) -> None:
    for path in ("/alerts", "/notices", "/settings/keys"):
        with eyes.open(path, stranger) as page:
            eyes.barriers(page)
            eyes.shoot(page, "empty" + path.replace("/", "-"))


@pytest.mark.parametrize("path", PAGES)
def test_whoever_is_signed_out_is_sent_to_sign_in_and_back(site: Site, path: str) -> None:
    answer = site.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in?next=/")


@pytest.mark.parametrize("path", FORMS)
def test_no_form_is_taken_without_the_sessions_token(site: Site, owner: Member, path: str) -> None:
    with site.client(owner) as client:
        for token in ({}, {"csrf_token": "0" * 64}):
            answer = client.post(path, data={"name": "x", **token})
            assert answer.status_code == 403
            assert "session changed" in answer.text
        foreign = client.post(
            path, data={"csrf_token": owner.csrf}, headers={"Origin": "https://evil.example"}
        )
        assert foreign.status_code == 403
        assert "another site" in foreign.text


@pytest.mark.parametrize("path", FORMS)
def test_no_form_is_taken_of_whoever_is_signed_out(site: Site, path: str) -> None:
    answer = site.post(path, None, name="x")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")


def first_id(site: Site, table: str, member: Member) -> int:
    (found,) = {
        "alert_rule": site.rows("SELECT min(id) FROM alert_rule WHERE account_id = %s", member.id),
        "api_key": site.rows("SELECT min(id) FROM api_key WHERE account_id = %s", member.id),
        "session": site.rows("SELECT min(id) FROM session WHERE account_id = %s", member.id),
        "channel": site.rows("SELECT min(id) FROM channel WHERE account_id = %s", member.id),
    }[table]
    return int(found[0])


def test_other_peoples_things_are_not_there(site: Site, owner: Member, stranger: Member) -> None:
    api(site, owner, "POST", "/channels", {"url": "https://hooks.example.com/x", "name": "Hook"})
    rule, key = first_id(site, "alert_rule", owner), first_id(site, "api_key", owner)
    session, channel = first_id(site, "session", owner), first_id(site, "channel", owner)
    assert site.get(f"/alerts/rules/{rule}", stranger).status_code == 404
    for path in (
        f"/alerts/rules/{rule}",
        f"/alerts/rules/{rule}/delete",
        f"/settings/keys/{key}/delete",
        f"/settings/sessions/{session}/end",
        f"/alerts/channels/{channel}/delete",
        f"/alerts/channels/{channel}/secret",
        f"/alerts/channels/{channel}/test",
    ):
        answer = site.post(path, stranger, name="mine now", kind="threshold")
        assert answer.status_code == 404, path
    for path in PAGES:
        text = site.get(path, stranger).text
        for name in ("Too warm", "Cellar flow", "hooks.example.com", "Cellar", owner.email):
            assert name not in text, path
    assert site.get(f"/alerts/rules/{rule}", owner).status_code == 200


def test_what_was_typed_stays_where_it_was_refused(site: Site, owner: Member) -> None:
    answer = site.post(
        "/alerts/rules/new",
        owner,
        kind="threshold",
        name="Warm again",
        metric="temperature",
        operator=">",
        threshold="hot",
        **{"for": "5m"},
    )
    assert answer.status_code == 422
    assert "This is a number, such as 21.5." in answer.text
    for typed in ('value="Warm again"', 'value="hot"', 'value="5m"'):
        assert typed in answer.text


def test_a_rule_is_tried_on_the_last_24_hours_before_it_is_made(
    eyes: Eyes, site: Site, owner: Member
) -> None:
    site.rows("UPDATE series SET unit = '°C' WHERE metric = 'temperature'")
    with eyes.open("/alerts/rules/new", owner) as page:
        page.fill("#name", "Preview")
        page.fill("#metric", "temperature")
        page.fill("#threshold", "30")
        page.click("button[name=preview]")
        page.wait_for_selector("text=there would have been")
        assert page.input_value("#name") == "Preview"
        assert page.input_value("#threshold") == "30"
        told = page.locator(
            "[aria-label='What the rule would have done'] tbody tr"
        ).all_inner_texts()
        assert len(told) == 3
        assert all("°C" in line for line in told)
        eyes.barriers(page)
        eyes.shoot(page, "rule-preview")
        page.click("text=Make the rule")
        page.wait_for_selector("text=The rule is saved.")
        assert page.locator("tr:has-text('Preview')").get_by_text("above 30 °C").count() == 1
        page.click("a:has-text('Preview')")
        eyes.shoot(page, "rule")
        page.fill("#clear", "28")
        page.click("text=Save the rule")
        page.wait_for_selector("text=The rule is saved.")
    rows = site.rows("SELECT clear FROM alert_rule WHERE name = 'Preview'")
    assert rows == [(28.0,)]


def test_a_rule_past_the_plans_limit_names_limit_and_way_out(site: Site) -> None:
    bob = site.member("bob", plan="free")
    fields = {"kind": "offline", "for": "60s", "enabled": "yes"}
    for name in "abc":
        assert site.post("/alerts/rules/new", bob, name=name, **fields).status_code == 303
    refused = site.post("/alerts/rules/new", bob, name="d", **fields)
    assert refused.status_code == 409
    assert "The plan free allows 3 alert rules." in refused.text
    assert 'href="/settings/plan"' in refused.text
    assert 'value="d"' in refused.text


def test_a_key_is_shown_once_and_works(eyes: Eyes, site: Site, owner: Member) -> None:
    with eyes.open("/settings/keys", owner) as page:
        page.fill("#name", "Script")
        page.click("button:has-text('Make the key')")
        page.wait_for_selector(".secret")
        key = page.inner_text(".secret")
        eyes.shoot(page, "key-made")
        eyes.barriers(page)
    asked = httpx.get(f"{site.url}/api/v1/devices", headers={"Authorization": f"Bearer {key}"})
    assert asked.status_code == 200
    assert key not in site.get("/settings/keys", owner).text


def test_a_step_that_is_sensitive_asks_for_the_password_and_keeps_what_was_typed(
    site: Site, owner: Member
) -> None:
    late = Member(owner.id, owner.email, site.session(owner.id))
    site.rows(
        "UPDATE session SET authenticated_at = now() - interval '1 hour'"
        " WHERE id = (SELECT max(id) FROM session)"
    )
    fields: dict[str, Any] = {"name": "Late", "scopes": ["alerts"], "lasts": "30"}
    refused = site.post("/settings/keys", late, **fields)
    assert refused.status_code == 422
    assert 'value="Late"' in refused.text
    assert 'name="current_password"' in refused.text
    wrong = site.post("/settings/keys", late, current_password="nonsense", **fields)
    assert "This is not your password." in wrong.text
    made = site.post("/settings/keys", late, current_password=PASSWORD, **fields)
    assert made.status_code == 200
    assert re.search(r'class="secret"[^>]*>pqt_', made.text)
    renewed = made.cookies["paqett_session"]
    assert site.get("/settings", late).status_code == 303  # the session goes on under a new token
    assert site.get("/settings", Member(owner.id, owner.email, renewed)).status_code == 200


def test_who_has_no_password_is_mailed_a_code(site: Site) -> None:
    eve = site.member("eve")
    site.rows("UPDATE account SET password_hash = NULL WHERE id = %s", eve.id)
    site.rows(
        "UPDATE session SET authenticated_at = now() - interval '1 hour' WHERE account_id = %s",
        eve.id,
    )
    asked = site.post("/settings/email", eve, email="eve2@example.org", mail_code="yes")
    assert "A code of eight digits is on its way" in asked.text
    assert 'value="eve2@example.org"' in asked.text

    async def issue(conn: Any) -> str:
        from paqett import tokens

        return await tokens.issue_code(conn, eve.id, eve.email, site.now(), 600)

    code = site.do(issue)
    done = site.post("/settings/email", eve, email="eve2@example.org", code=code)
    assert done.status_code == 303
    pending = site.rows("SELECT pending_email FROM account WHERE id = %s", eve.id)
    assert pending == [("eve2@example.org",)]


def test_profile_password_and_notifications_are_changed_on_the_page(site: Site) -> None:
    kim = site.member("kim", password=PASSWORD)
    other = site.session(kim.id)
    saved = site.post("/settings/profile", kim, first_name="Kim", time_zone="Europe/Berlin")
    assert saved.headers["location"] == "/settings?done=saved"
    assert "Europe/Berlin" in site.get("/settings", kim).text
    wrong = site.post("/settings/profile", kim, first_name="Kim", time_zone="Mars/Base")
    assert "IANA name" in wrong.text
    short = site.post("/settings/password", kim, password="short")
    assert "8 to 128 characters" in short.text
    site.post("/settings/notifications", kim, mail=["device"], webhook=[])
    rows = site.rows(
        "SELECT kind, mail, webhook FROM notification_preference WHERE account_id = %s"
        " ORDER BY kind",
        kim.id,
    )
    assert [row for row in rows if row[1] or row[2]] == [("device", True, False)]
    changed = site.post("/settings/password", kim, password="another battery staple")
    assert changed.status_code == 303
    assert site.get("/settings", Member(kim.id, kim.email, other)).status_code == 303
    now = Member(kim.id, kim.email, changed.cookies["paqett_session"])
    assert "every other session has ended" in site.get(changed.headers["location"], now).text


def test_signing_out_and_in_again_leads_back(eyes: Eyes, site: Site) -> None:
    site.member("pia", password=PASSWORD)
    with eyes.open("/alerts") as page:
        page.fill("#email", "pia@example.org")
        page.fill("#password", PASSWORD)
        page.click("main button:has-text('Sign in')")
        page.wait_for_url("**/alerts")
        page.click("text=Sign out")
        page.wait_for_selector("text=You are signed out.")
        page.goto("/alerts")
        assert "/sign-in" in page.url


@pytest.mark.parametrize("place", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_signing_in_leads_to_no_other_site(site: Site, place: str) -> None:
    site.rows("DELETE FROM account WHERE email = 'zoe@example.org'")
    site.member("zoe", password=PASSWORD)
    answer = site.post("/sign-in", email="zoe@example.org", password=PASSWORD, next=place)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(view.HOME)


def test_registering_confirming_and_resetting_on_pages(eyes: Eyes, site: Site) -> None:
    from people import mailed

    with eyes.open("/sign-up") as page:
        page.fill("#email", "new@example.org")
        page.fill("#password", "password1")
        page.check("[name=age_confirmed]")
        page.click("button:has-text('Make my account')")
        page.wait_for_selector("text=among those tried first")
        eyes.shoot(page, "sign-up-refused")
        assert page.input_value("#email") == "new@example.org"
        page.fill("#password", PASSWORD)
        page.click("button:has-text('Make my account')")
        page.wait_for_url("**/sign-up/sent")
    token = site.apart(lambda: mailed(site.settings, "new@example.org", "verify_email"))
    with eyes.open(f"/verify-email?token={token}") as page:
        page.click("text=Confirm this address")
        page.wait_for_selector("text=Your address is confirmed.")
    again = site.post("/verify-email", token=token)
    assert again.status_code == 422
    assert "not valid, was used or has expired" in again.text
    token = site.apart(lambda: mailed(site.settings, "new@example.org", "reset_password"))
    done = site.post("/reset-password", token=token, password="yet another one")
    assert done.headers["location"] == "/sign-in?done=password_reset"
    signed_in = site.post("/sign-in", email="new@example.org", password="yet another one")
    assert signed_in.status_code == 303


def test_a_disabled_account_sees_its_settings_and_nothing_else(site: Site) -> None:
    dora = site.member("dora")
    site.rows("UPDATE account SET disabled_at = now() WHERE id = %s", dora.id)
    assert "This account is disabled" in site.get("/settings", dora).text
    refused = site.get("/alerts", dora)
    assert refused.status_code == 403
    assert 'href="/settings"' in refused.text


def test_too_many_tries_are_told_with_the_time_to_wait(site: Site) -> None:
    for _ in range(3):
        site.post("/reset-password", email="guess@example.org")
    answer = site.post("/reset-password", email="guess@example.org")
    assert answer.status_code == 429
    assert "minutes" in answer.text
    assert 'value="guess@example.org"' in answer.text
    assert int(answer.headers["retry-after"]) > 0


def test_pages_are_small_and_ask_for_little(site: Site, owner: Member) -> None:
    """With style and scripts, as they are sent."""
    with site.client(owner) as client:
        for path in PAGES:
            page = client.get(path)
            assert page.headers["cache-control"] == "no-store"
            urls = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text))
            sizes = []
            for url in urls:
                asset = client.get(url)
                assert "immutable" in asset.headers["cache-control"]
                sizes.append(int(asset.headers["content-length"]))
            assert len(page.content) + sum(sizes) < 100_000, path


def test_pages_count_neither_against_the_plan_nor_in_its_usage(site: Site) -> None:
    ida = site.member("ida", plan="free")
    for _ in range(5):
        assert "ratelimit" not in site.get("/notices", ida).headers
    assert site.rows("SELECT * FROM request_window WHERE account_id = %s", ida.id) == []


def test_signing_out_clears_what_the_browser_kept(site: Site) -> None:
    answer = site.post("/sign-out", site.member("uma"))
    assert answer.headers["clear-site-data"] == '"cache", "storage"'
    assert 'paqett_session=""' in answer.headers["set-cookie"]
    assert "Max-Age=0" in answer.headers["set-cookie"]


def test_what_people_write_stays_text(eyes: Eyes, site: Site) -> None:
    """In a name of a rule, a key, a device and a person; a script in it would be heard of."""
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    vic = site.member("vic")
    api(site, vic, "POST", "/devices", {"thing_name": hostile})
    rule = {"name": hostile, "kind": "offline"}
    api(site, vic, "POST", "/alert-rules", rule)
    api(site, vic, "POST", "/api-keys", {"name": hostile, "scopes": ["alerts"]})
    api(site, vic, "PATCH", "/account", {"first_name": hostile})
    for path in ("/alerts", "/settings/keys", "/settings", "/notices", "/alerts/rules/new"):
        assert hostile not in site.get(path, vic).text
        with eyes.open(path, vic) as page:
            assert page.locator("img[src=x]").count() == 0
