"""Signing in with GitHub, against an authorization server on loopback."""

from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest

from authorization_server import AuthorizationServer
from people import Person, new_person

START = "/api/v1/auth/github/start"


@pytest.fixture
def github() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as server:
        yield server


@pytest.fixture
def api(make_api, github):  # type: ignore[no-untyped-def]
    return make_api(**github.environ)


async def there(client: httpx.AsyncClient, url: str) -> str:
    """The provider's page; returns the path and query that its answer leads to."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(url)
        assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["location"])
    return f"{back.path}?{back.query}"


async def begin(client: httpx.AsyncClient, **asked: object) -> str:
    answer = await client.get(START, params={"age_confirmed": True, **asked})
    assert answer.status_code == 302
    return await there(client, answer.headers["location"])


async def sign_in(client: httpx.AsyncClient, **asked: object) -> httpx.Response:
    return await client.get(await begin(client, **asked))


def test_a_first_sign_in_makes_an_account_and_the_next_finds_it(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await sign_in(client, return_to="/devices?tag=a")
        assert (answer.status_code, answer.headers["location"]) == (303, "/devices?tag=a")
        mine = (await client.get("/api/v1/account")).json()
        assert (mine["email"], mine["has_password"]) == ("ada@example.org", False)
        assert mine["providers"] == ["github"]
        assert mine["age_confirmed_at"]
        assert mine["policy_version"]
        client.cookies.clear()
        assert (await sign_in(client)).status_code == 303
        assert (await client.get("/api/v1/account")).json()["id"] == mine["id"]

    api.run(work)
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*) FROM account").fetchone() == (1,)
        assert conn.execute("SELECT method FROM session").fetchall() == [("github",)] * 2


def test_the_person_is_known_by_number_not_by_address(api, github) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await sign_in(client)
        first = (await client.get("/api/v1/account")).json()
        client.cookies.clear()
        github.person["emails"] = [{"email": "x@example.org", "primary": True, "verified": True}]
        await sign_in(client)
        assert (await client.get("/api/v1/account")).json() == first
        client.cookies.clear()
        github.person = {"id": 1, "emails": [
            {"email": "ada@example.org", "primary": True, "verified": True}]}  # fmt: skip
        answer = await sign_in(client)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")

    api.run(work)


def test_an_account_with_a_password_is_never_joined_silently(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        client.cookies.clear()
        answer = await sign_in(client)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert (await client.get("/api/v1/account")).status_code == 401
        await person.sign_in()
        url = (await person.ask("POST", "/auth/github/join")).json()["url"]
        assert (await client.get(await there(client, url))).status_code == 303
        mine = (await person.ask("GET", "/account")).json()
        assert (mine["providers"], mine["has_password"]) == (["github"], True)
        client.cookies.clear()
        assert (await sign_in(client)).status_code == 303
        assert (await client.get("/api/v1/account")).json()["id"] == mine["id"]

    api.run(work)


def test_joining_needs_the_sessions_token_and_a_recent_proof(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        answer = await client.post("/api/v1/auth/github/join")
        assert answer.json()["code"] == "csrf_failed"
        api.later(timedelta(minutes=20))
        answer = await person.ask("POST", "/auth/github/join")
        assert answer.json()["code"] == "reauthentication_required"

    api.run(work)


def test_the_last_way_in_is_not_taken_away(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await sign_in(client)
        csrf = (await client.get("/api/v1/account")).headers["x-csrf-token"]
        person = Person(client, "ada@example.org", csrf=csrf)
        assert (await person.ask("DELETE", "/auth/github/join")).status_code == 409
        answer = await person.ask("POST", "/account/password", json={"password": "a first one"})
        person.csrf = answer.json()["csrf_token"]
        assert (await person.ask("DELETE", "/auth/github/join")).status_code == 204
        assert (await person.ask("DELETE", "/auth/github/join")).status_code == 404
        assert (await person.ask("GET", "/account")).json()["providers"] == []

    api.run(work)


@pytest.mark.parametrize(
    "emails",
    [
        [],
        [{"email": "ada@example.org", "primary": True, "verified": False}],
        [{"email": "ada@example.org", "primary": False, "verified": True}],
    ],
)
def test_only_the_primary_verified_address_counts(api, github, emails) -> None:
    github.person["emails"] = emails

    async def work(client: httpx.AsyncClient) -> None:
        answer = await sign_in(client)
        assert (answer.status_code, answer.json()["code"]) == (403, "email_not_verified")

    api.run(work)


def test_a_first_sign_in_asks_for_the_persons_age(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await sign_in(client, age_confirmed=False)
        assert (answer.status_code, answer.json()["code"]) == (403, "age_confirmation_required")

    api.run(work)
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*) FROM account").fetchone() == (0,)


def test_a_registration_nobody_confirmed_gives_way_to_the_addresss_owner(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        body = {
            "email": "ada@example.org", "password": "the attacker's own", "age_confirmed": True,
        }  # fmt: skip
        await client.post("/api/v1/auth/register", json=body)
        assert (await sign_in(client)).status_code == 303
        assert not (await client.get("/api/v1/account")).json()["has_password"]
        client.cookies.clear()
        attacker = Person(client, "ada@example.org", "the attacker's own")
        assert (await attacker.sign_in()).status_code == 401

    api.run(work)


def test_a_state_works_once_in_one_browser_and_not_for_long(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        back = await begin(client)
        held = dict(client.cookies)
        client.cookies.clear()
        # the victim's browser is led to the attacker's callback (login CSRF)
        assert (await client.get(back)).status_code == 422
        client.cookies.update(held)
        assert (await client.get(back)).status_code == 303
        client.cookies.update(held)
        assert (await client.get(back)).status_code == 422
        forged = parse_qs(urlsplit(back).query)["code"][0]
        for query in (f"code={forged}", f"code={forged}&state=", "state=x&code=y", ""):
            answer = await client.get(f"/api/v1/auth/github/callback?{query}")
            assert answer.status_code == 422
        back = await begin(client)
        api.later(timedelta(minutes=11))
        assert (await client.get(back)).status_code == 422

    api.run(work)


def test_a_code_is_worth_nothing_without_its_verifier_or_twice(api, github) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        stolen = parse_qs(urlsplit(await begin(client)).query)["code"][0]
        back = await begin(client)
        state = parse_qs(urlsplit(back).query)["state"][0]
        answer = await client.get(f"/api/v1/auth/github/callback?code={stolen}&state={state}")
        assert (answer.status_code, answer.json()["code"]) == (502, "sign_in_failed")
        assert stolen not in answer.text
        github.broken = True
        answer = await sign_in(client)
        assert (answer.status_code, answer.json()["code"]) == (502, "sign_in_failed")

    api.run(work)


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example",
     "javascript:alert(1)", "/a\r\nSet-Cookie: x=y", "/\t/evil.example", "evil", "/ü"],
)  # fmt: skip
def test_nobody_is_led_to_another_site(api, elsewhere) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await sign_in(client, return_to=elsewhere)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")

    api.run(work)


def test_a_provider_that_is_not_set_up_is_not_there(make_api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for name in ("github", "nosuch"):
            answer = await client.get(f"/api/v1/auth/{name}/start")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    make_api().run(work)


def test_closed_registration_holds_for_providers_too(make_api, github) -> None:
    api = make_api(**github.environ, PAQETT_AUTH__OPEN_REGISTRATION="false")

    async def work(client: httpx.AsyncClient) -> None:
        answer = await sign_in(client)
        assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")

    api.run(work)
