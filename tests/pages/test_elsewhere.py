"""Pages that lead to other people's, and back: Stripe's and GitHub's, both on loopback here."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import pytest
from psycopg import sql

from authorization_server import AuthorizationServer
from paqett.local.fake_stripe.server import Server
from shop import LOOKUP_KEY, SECRET_KEY, WEBHOOK_SECRET
from site_of_tests import Eyes, Member, Site


@pytest.fixture(scope="module")
def github() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as server:
        yield server


@pytest.fixture(scope="module")
def stripe() -> Iterator[Server]:
    with Server(SECRET_KEY) as server:
        server.fake.add_price(LOOKUP_KEY, 900)
        yield server


@pytest.fixture(scope="module")
def site(
    site_url: str, api_url: str, github: AuthorizationServer, stripe: Server
) -> Iterator[Site]:
    environ = {
        "PAQETT_STRIPE__SECRET_KEY": SECRET_KEY,
        "PAQETT_STRIPE__WEBHOOK_SECRET": WEBHOOK_SECRET,
        "PAQETT_STRIPE__API_BASE": stripe.url,
        "PAQETT_PRIVACY__CONTROLLER": "Ada Lovelace, 12 St James's Square, London",
        "PAQETT_PRIVACY__CONTACT": "privacy@telemetry.example.org",
        "PAQETT_PRIVACY__HOSTING_REGION": "Falkenstein, Germany (EU)",
        "PAQETT_PRIVACY__PROCESSORS": "Hosting Ltd | servers | Germany | in the EU",
        "PAQETT_DATABASE__CONNECT_TIMEOUT_S": "1",
        **github.environ,
    }
    with Site(site_url, api_url, **environ).running() as running:
        yield running


def leads_to(answer: httpx.Response) -> str:
    """Where a page takes the browser: by itself, and by a link for whoever is not taken."""
    assert answer.status_code == 200, re.findall(r"<div class=.told.*", answer.text)
    (url,) = re.findall(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
    assert f'href="{url}"' in answer.text
    return url.replace("&amp;", "&")


def begin(site: Site, path: str, member: Member | None = None) -> httpx.Response:
    """To GitHub and back to our own callback, in one browser."""
    with site.client(member) as client:
        there = client.get(path)
        if there.status_code == 200:
            url = leads_to(there)
        else:
            assert there.status_code == 302, there.text
            url = there.headers["location"]
        return come_back(client, url)


def come_back(client: httpx.Client, url: str) -> httpx.Response:
    with httpx.Client(trust_env=False) as github:
        back = github.get(url).headers["location"]
    return client.get(back)


def test_the_pages_offer_what_is_set_up(site: Site) -> None:
    assert "Sign in with GitHub" in site.get("/sign-in?next=/alerts").text
    assert "return_to=/alerts" in site.get("/sign-in?next=/alerts").text
    assert "sign up with GitHub" in site.get("/sign-up").text
    front = site.get("/").text
    assert "90\u00a0days" in front
    assert "250,000" in front


def test_a_first_sign_in_with_github_asks_for_the_age_and_then_works(site: Site) -> None:
    refused = begin(site, "/api/v1/auth/github/start")
    assert refused.status_code == 403
    assert refused.headers["content-type"].startswith("text/html")
    (link,) = re.findall(r'href="(/api/v1/auth/github/start[^"]*)"', refused.text)
    signed_in = begin(site, link.replace("&amp;", "&"))
    assert signed_in.status_code == 303
    assert signed_in.cookies["paqett_session"]


def test_a_sign_in_that_was_not_begun_here_is_told_on_a_page(eyes: Eyes, site: Site) -> None:
    answer = site.get("/api/v1/auth/github/callback?state=x&code=y")
    assert answer.status_code == 422
    assert "was not begun here" in answer.text
    program = site.get("/api/v1/auth/github/callback", headers={"Accept": "application/json"})
    assert program.headers["content-type"] == "application/problem+json"


def test_github_is_joined_and_parted_in_the_settings(
    site: Site, github: AuthorizationServer
) -> None:
    github.person["id"] = 4712
    joe = site.member("joe", password="correct horse battery")
    with site.client(joe) as client:
        there = client.post("/settings/github/join", data={"csrf_token": joe.csrf})
        assert come_back(client, leads_to(there)).headers["location"] == "/settings"
        assert "GitHub signs in to this account" in client.get("/settings").text
        parted = client.post("/settings/github/part", data={"csrf_token": joe.csrf})
        assert parted.headers["location"] == "/settings?done=github_off"


def test_a_plan_is_bought_by_a_form_and_managed_after(
    eyes: Eyes, site: Site, stripe: Server
) -> None:
    ann = site.member("ann", plan="free")
    eyes.check("/settings/plan", ann, name="settings-plan-free")
    answer = site.post("/settings/plan/checkout", ann, plan="paid")
    assert leads_to(answer).startswith(stripe.url)
    again = site.post("/settings/plan/checkout", ann, plan="paid")
    assert again.status_code == 409
    assert "A Checkout of this account is open" in again.text
    assert f'href="{stripe.url}' in again.text  # the way on to the open one
    assert "Thank you" in site.get("/settings/plan?checkout=done", ann).text
    assert "Nothing was bought" in site.get("/settings/plan?checkout=cancelled", ann).text
    early = site.post("/settings/plan/portal", site.member("tim", plan="free"))
    assert early.status_code == 409
    assert "Nothing was bought yet" in early.text


def test_the_policy_names_who_is_responsible_and_who_else_gets_data(site: Site) -> None:
    text = site.get("/privacy").text
    for named in (
        "Ada Lovelace", "privacy@telemetry.example.org", "Falkenstein", "Hosting Ltd", "Stripe",
        "GitHub, Inc.", "paqett_sign_in", "7\u00a0days", "90\u00a0days",
    ):  # fmt: skip
        assert named in text, named


def test_the_front_page_stands_up_to_a_look_with_plans(eyes: Eyes) -> None:
    eyes.check("/", name="front-sold")


def test_while_the_database_is_away_a_page_says_so(site: Site, site_url: str) -> None:
    name = urlsplit(site_url).path[1:]
    member = site.member("late")
    with psycopg.connect(urlunsplit(urlsplit(site_url)._replace(path="/postgres"))) as conn:
        conn.autocommit = True
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        try:
            conn.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            answer = site.get("/settings", member)
        finally:
            conn.execute(allow.format(sql.Identifier(name), sql.SQL("true")))
    assert answer.status_code == 503
    assert "Not available just now" in answer.text
    assert "Try again in 2" in answer.text
    assert answer.headers["retry-after"] == "2"
