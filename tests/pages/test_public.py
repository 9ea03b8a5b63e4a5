"""What anybody sees without an account."""

import re
from html import unescape
from pathlib import Path

import pytest

from paqett import policy
from paqett.web.pages import docs
from site_of_tests import Eyes, Member, Site

PAGES = (
    "/", "/sign-up", "/sign-up/sent", "/sign-in", "/verify-email?token=abc", "/reset-password",
    "/reset-password?token=abc", "/reset-password/sent", "/privacy", "/privacy/versions/1",
    "/privacy/data", "/docs", "/docs/errors",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_public_page_stands_up_to_a_look(eyes: Eyes, path: str) -> None:
    eyes.check(path)


def test_what_is_not_there_is_a_page_for_browsers_and_a_problem_for_programs(site: Site) -> None:
    page = site.get("/nowhere")
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "There is nothing here" in page.text
    problem = site.get("/nowhere", headers={"Accept": "*/*"})
    assert problem.headers["content-type"] == "application/problem+json"
    below = site.get("/api/v1/nowhere")
    assert below.headers["content-type"] == "application/problem+json"


def test_a_page_of_an_error_stands_up_to_a_look(eyes: Eyes, owner: Member) -> None:
    with eyes.open("/sign-in") as page:
        page.fill("#email", "nobody@example.org")
        page.fill("#password", "wrong")
        page.click("button:has-text('Sign in')")
        page.wait_for_selector(".told.bad")
        assert page.input_value("#email") == "nobody@example.org"
        assert page.input_value("#password") == ""
        eyes.barriers(page)


def test_a_foreign_site_can_sign_nobody_in(site: Site) -> None:
    fields = {"email": "x@example.org", "password": "x"}
    with site.client() as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = client.post("/sign-in", data=fields, headers=headers)
            assert answer.status_code == 403
            assert "another site" in answer.text


def test_every_version_of_the_policy_stays_readable(site: Site) -> None:
    known = policy.versions()
    newest = unescape(site.get("/privacy").text)
    assert f"Last updated {known[0]}" in newest
    assert policy.in_force().changed in newest
    for version in known:
        assert site.get(f"/privacy/versions/{version}").status_code == 200
    assert site.get("/privacy/versions/2020-01-01").status_code == 404
    first = site.get("/privacy/versions/1").text
    assert "no longer in force" in first
    assert "Free Tier: 7-day retention" in first


def test_what_is_kept_is_told_in_words_of_people(site: Site) -> None:
    text = site.get("/privacy/data").text
    assert "90 days at most" in text  # of the setting of the cookie
    assert "session_max_s" not in text
    assert "<code>paqett up</code>" in text
    assert "`" not in text


def test_the_policy_says_what_the_code_does(site: Site) -> None:
    text = site.get("/privacy").text
    assert "argon2id" in text
    assert "paqett_session" in text
    assert "365\u00a0days" in text  # of the tier table
    assert "not said yet by whoever runs this installation" in text
    for promised in ("Export All My Data", "Delete Account", "Notification Settings"):
        assert promised in text


def test_every_page_of_the_docs_is_there_and_its_links_lead_somewhere(site: Site) -> None:
    for name in docs.docs():
        page = site.get(f"/docs/{name}")
        assert page.status_code == 200
        for link in re.findall(r'href="(/docs/[^"#]+)', page.text):
            assert link.removeprefix("/docs/") in docs.docs(), f"{name} leads to {link}"
    index = site.get("/docs").text
    assert {f"/docs/{name}" for name in docs.docs()} <= set(re.findall(r'href="([^"#]+)', index))
    assert "<span>Architecture</span>" in index  # not shipped
    assert 'id="not_found"' in site.get("/docs/errors").text
    assert site.get("/docs/nothing").status_code == 404


def test_files_of_others_are_shipped_and_kept_for_good(site: Site) -> None:
    from paqett.web import assets

    assert assets.missing() == []
    with site.client() as client:
        for name in assets.VENDOR:
            answer = client.get(assets.url(name))
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert client.get("/static/htmx.min.js").status_code == 404
        assert client.get("/static/..%2fpages%2fview.py").status_code == 404


def test_no_page_has_a_script_or_a_style_of_its_own() -> None:
    """The policy forbids both, and a browser would complain; here it is said by file."""
    folder = Path(docs.__file__).parents[1] / "templates"
    for path in folder.rglob("*.html"):
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", text), path


def test_password_fields_hide_and_take_what_a_manager_fills(eyes: Eyes) -> None:
    for path, words in (
        ("/sign-in", "current-password"), ("/sign-up", "new-password"),
        ("/reset-password?token=abc", "new-password"),
    ):  # fmt: skip
        with eyes.open(path) as page:
            field = page.locator("#password")
            assert field.get_attribute("type") == "password"
            assert field.get_attribute("autocomplete") == words
            pasted = "field => field.dispatchEvent(new ClipboardEvent('paste', {cancelable: true}))"
            assert field.evaluate(pasted), "nobody may forbid pasting"
