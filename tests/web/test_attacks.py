"""What a stranger or another tenant would try, each refused; what exists elsewhere is not repeated:
docs/asvs.md says which test shows what."""

import asyncio
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx
import psycopg
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from authorization_server import AuthorizationServer
from leaks import leaks_in
from paqett import db, letters, oauth
from paqett.app import utc_now
from people import PASSWORD, Person, mailed, new_person
from support import in_database, with_url

FORM_KINDS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]


@pytest.mark.parametrize("kind", [*FORM_KINDS, "application/jsonx", "", None])
def test_another_sites_form_signs_nobody_in(api, kind) -> None:
    """Login CSRF: such a form can send these kinds of bodies, and only these, without asking."""

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        client.cookies.clear()
        body = f'{{"email":"{person.email}","password":"{person.password}"}}'.encode()
        headers = {} if kind is None else {"Content-Type": kind}
        answer = await client.post("/api/v1/auth/login", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
        assert "set-cookie" not in answer.headers
        answer = await client.post("/api/v1/auth/password-reset", content=body, headers=headers)
        assert answer.status_code == 415

    api.run(work)


def test_no_other_site_may_read_an_answer(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await new_person(client, api.settings)
        ask = {
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "x-csrf-token",
        }
        for method in ("OPTIONS", "GET", "PATCH", "HEAD"):
            answer = await client.request(method, "/api/v1/account", headers=ask, json={})
            found = [name for name in answer.headers if name.startswith("access-control")]
            assert found == [], method

    api.run(work)


@pytest.mark.parametrize(
    "header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"]
)
def test_a_method_is_what_the_request_line_says(api, header) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        for method in ("GET", "POST"):
            answer = await person.ask(
                method, "/sessions?_method=DELETE", headers={header: "DELETE"},
            )  # fmt: skip
            assert answer.status_code == (200 if method == "GET" else 405)
        assert (await person.ask("GET", "/account")).status_code == 200
        assert (await client.request("TRACE", "/api/v1/account")).status_code == 405

    api.run(work)


MINE = [
    ("PATCH", "/account", {"operator": True}),
    ("PATCH", "/account", {"plan": "own"}),
    ("PATCH", "/account", {"email": "root@example.org"}),
    ("PATCH", "/account", {"email_verified_at": "2020-01-01T00:00:00Z"}),
    ("PATCH", "/account", {"id": 1}),
    ("POST", "/account/password", {"password": "another fine one", "account_id": 1}),
    ("POST", "/auth/reauthenticate", {"password": PASSWORD, "authenticated_at": "2099-01-01"}),
    ("POST", "/auth/login", {"email": "a@example.org", "password": "x", "method": "admin"}),
    (
        "POST",
        "/auth/register",
        {"email": "b@example.org", "password": PASSWORD, "age_confirmed": True, "operator": True},
    ),
    (
        "POST",
        "/auth/register",
        {"email": "b@example.org", "password": PASSWORD, "age_confirmed": True, "plan": "own"},
    ),
    ("POST", "/api-keys", {"name": "k", "scopes": ["export"], "account_id": 1}),
    ("POST", "/devices", {"thing_name": "x", "id": "chosen"}),
    ("POST", "/devices", {"thing_name": "x", "account_id": 1}),
    ("POST", "/devices", {"thing_name": "x", "secret": "chosen"}),
    ("POST", "/devices/bulk", [{"thing_name": "x", "verifier": "chosen"}]),
]


@pytest.mark.parametrize(
    ("method", "path", "body"), MINE, ids=[f"{path} {list(body)[-1]}" for _, path, body in MINE]
)
def test_no_field_is_set_that_is_not_offered(api, database_url, method, path, body) -> None:
    """Mass assignment: the whole request is refused, and the member is named."""

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        answer = await person.ask(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        profile = (await person.ask("GET", "/account")).json()
        assert (profile["operator"], profile["email"]) == (False, person.email)
        assert (await person.ask("GET", "/devices")).json()["items"] == []

    api.run(work)


def test_of_two_cookies_or_headers_neither_is_believed_by_half(api) -> None:
    """Parameter pollution: whichever counts, it counts for session and token alike."""

    async def work(client: httpx.AsyncClient) -> None:
        thief = await new_person(client, api.settings, "thief@example.org")
        theirs = client.cookies["paqett_session"]
        client.cookies.clear()
        person = await new_person(client, api.settings)
        mine = client.cookies["paqett_session"]
        client.cookies.clear()
        for first, second in ((theirs, mine), (mine, theirs)):
            cookies = f"paqett_session={first}; paqett_session={second}"
            asked = await client.get("/api/v1/account", headers={"Cookie": cookies})
            who = asked.json()["email"]
            csrf = {"thief@example.org": thief.csrf, person.email: person.csrf}
            for token_of, token in csrf.items():
                answer = await client.patch(
                    "/api/v1/account", json={"surname": "x"},
                    headers={"Cookie": cookies, "X-CSRF-Token": token},
                )  # fmt: skip
                assert answer.status_code == (200 if token_of == who else 403)
        # two credentials in one request: an unknown key is not made good by a cookie
        pair = [("Authorization", "Bearer pqt_wrong"), ("Cookie", f"paqett_session={mine}")]
        assert (await client.get("/api/v1/account", headers=pair)).status_code == 401
        twice = [
            ("Cookie", f"paqett_session={mine}"),
            ("X-CSRF-Token", "0" * 64),
            ("X-CSRF-Token", person.csrf),
        ]
        answer = await client.patch("/api/v1/account", json={"surname": "y"}, headers=twice)
        assert answer.status_code == 403

    api.run(work)


def test_a_parameter_given_twice_widens_nothing(api, owner, attacker) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        key = await api.key(owner.account_id, devices=[owner.devices[0]])
        headers = {"Authorization": f"Bearer {key}"}
        query = f"device={owner.devices[0]}&device={owner.devices[1]}"
        answer = await client.get(f"/api/v1/usage/rejections?{query}", headers=headers)
        assert answer.status_code in (200, 404, 422)
        assert answer.json().get("items", []) == []
        answer = await client.get("/api/v1/devices?limit=1&limit=100000", headers=headers)
        assert len(answer.json().get("items", [])) <= 1

    api.run(work)


@pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host", "Forwarded", "X-Original-URL"])
def test_a_link_in_a_mail_leads_to_us_whatever_host_was_asked_for(
    make_api, database_url, header
) -> None:
    api = make_api(PAQETT_PAQETT__PUBLIC_URL="https://paqett.example")

    async def work(client: httpx.AsyncClient) -> None:
        evil = {header: "host=evil.example" if header == "Forwarded" else "evil.example"}
        body = {"email": "ada@example.org", "password": PASSWORD, "age_confirmed": True}
        answer = await client.post("/api/v1/auth/register", json=body, headers=evil)
        assert answer.status_code == 202
        answer = await client.post(
            "/api/v1/auth/password-reset", json={"email": "ada@example.org"}, headers=evil
        )
        assert answer.status_code == 202

    api.run(work)

    async def written(conn: db.Connection) -> list[Any]:
        rows = await (await conn.execute("SELECT args FROM procrastinate_jobs")).fetchall()
        assert len(rows) == 2
        return [
            await letters.write(
                conn, letters.terms(api.settings), row["args"]["template"],
                row["args"]["account_id"], row["args"]["ids"], utc_now(),
            )
            for row in rows
        ]  # fmt: skip

    for mail in in_database(database_url, written):
        assert "https://paqett.example/verify-email?token=" in mail.text
        assert "evil.example" not in mail.text + mail.html


def test_nobody_is_sent_to_a_provider_from_another_host(make_api) -> None:
    with AuthorizationServer() as github:
        api = make_api(**github.environ, PAQETT_PAQETT__PUBLIC_URL="https://paqett.example")

        async def work(client: httpx.AsyncClient) -> None:
            answer = await client.get("/api/v1/auth/github/start", headers={"Host": "evil.example"})
            assert "evil.example" not in answer.headers["location"]
            assert (
                "paqett.example%2Fapi%2Fv1%2Fauth%2Fgithub%2Fcallback"
                in (answer.headers["location"])
            )

        api.run(work)


def test_a_providers_sign_in_is_not_begun_without_end(make_api) -> None:
    """Each leaves a row: a stranger could fill the database with them."""
    with AuthorizationServer() as github:
        api = make_api(**github.environ)

        async def work(client: httpx.AsyncClient) -> None:
            answers = [await client.get("/api/v1/auth/github/start") for _ in range(31)]
            assert [answer.status_code for answer in answers] == [302] * 30 + [429]
            api.later(timedelta(minutes=16))
            assert (await client.get("/api/v1/auth/github/start")).status_code == 302

        api.run(work)


def test_a_joining_ends_with_the_session_that_began_it(make_api) -> None:
    """Whoever stole a session must not come in by their own GitHub account once it was ended."""
    with AuthorizationServer() as github:
        api = make_api(**github.environ)

        async def back(url: str) -> str:
            async with httpx.AsyncClient(trust_env=False) as browser:
                answer = await browser.get(url)
            return answer.headers["location"].replace(api.settings.public_url, "")

        async def work(client: httpx.AsyncClient) -> None:
            thief = await new_person(client, api.settings)
            answer = await thief.ask("POST", "/auth/github/join")
            location = await back(answer.json()["url"])
            async with httpx.AsyncClient(
                transport=client._transport, base_url="http://test"
            ) as browser:
                owner = Person(browser, thief.email)
                await owner.sign_in()
                assert (await owner.ask("DELETE", "/sessions")).status_code == 204
            assert (await client.get(location)).status_code == 401
            await thief.sign_in()
            assert (await thief.ask("GET", "/account")).json()["providers"] == []
            # and one that is still signed in gets there
            answer = await thief.ask("POST", "/auth/github/join")
            location = await back(answer.json()["url"])
            assert (await client.get(location)).status_code == 303
            assert (await thief.ask("GET", "/account")).json()["providers"] == ["github"]

        api.run(work)


@pytest.mark.parametrize("way", ["everywhere", "password", "reset"])
def test_a_change_of_address_ends_with_the_session_that_asked_for_it(
    api, database_url, way
) -> None:
    """Its token lies in the thief's mailbox and needs no session."""

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        answer = await person.ask("POST", "/account/email", json={"email": "thief@example.org"})
        assert answer.status_code == 202
        token = await mailed(api.settings, person.email, "change_email", to="thief@example.org")
        if way == "everywhere":
            assert (await person.ask("DELETE", "/sessions")).status_code == 204
        elif way == "password":
            body = {"password": "another fine one", "current_password": PASSWORD}
            assert (await person.ask("POST", "/account/password", json=body)).status_code == 200
        else:
            body = {
                "token": await mailed(api.settings, person.email, "reset_password"),
                "password": "another fine one",
            }
            answer = await client.post("/api/v1/auth/password-reset/confirm", json=body)
            assert answer.status_code == 200
        answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
        assert (answer.status_code, answer.json()["field"]) == (422, "token")
        with psycopg.connect(database_url) as conn:
            row = conn.execute("SELECT email, pending_email FROM account").fetchone()
        assert row == ("ada@example.org", None)

    api.run(work)


def test_what_was_mailed_to_an_old_address_is_worth_nothing(api) -> None:
    """Whoever reads a mailbox that the person has left."""

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        old = await mailed(api.settings, person.email, "reset_password")
        await person.ask("POST", "/account/email", json={"email": "new@example.org"})
        token = await mailed(api.settings, person.email, "change_email", to="new@example.org")
        answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
        assert answer.status_code == 200
        body = {"token": old, "password": "the attacker's one"}
        answer = await client.post("/api/v1/auth/password-reset/confirm", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, "token")

    api.run(work)


def test_a_sign_in_after_a_long_absence_is_told_to_the_person(api, database_url) -> None:
    """Sessions are forgotten after 30 days: then every address is an unknown one."""

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        with psycopg.connect(database_url) as conn:
            assert conn.execute("SELECT count(*) FROM notice").fetchone() == (0,)
            conn.execute("DELETE FROM session")
        api.later(timedelta(days=40))
        assert (await person.sign_in()).status_code == 200
        with psycopg.connect(database_url) as conn:
            assert conn.execute("SELECT event FROM notice").fetchall() == [("new_sign_in",)]

    api.run(work)


def test_keys_are_not_made_without_end(api, database_url, monkeypatch) -> None:
    monkeypatch.setattr("paqett.keys.MOST", 3)

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        body = {"name": "k", "scopes": ["export"]}
        answers = [await person.ask("POST", "/api-keys", json=body) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [201, 201, 201, 409]
        key = answers[0].json()["id"]
        # each is told by mail: making and deleting them by turns is bounded as well
        for _ in range(97):
            assert (await person.ask("DELETE", f"/api-keys/{key}")).status_code == 204
            key = (await person.ask("POST", "/api-keys", json=body)).json()["id"]
        assert (await person.ask("DELETE", f"/api-keys/{key}")).status_code == 204
        assert (await person.ask("POST", "/api-keys", json=body)).status_code == 429

    api.run(work)


def test_a_password_is_not_told_by_a_notice_or_an_answer(api, database_url) -> None:
    """What the database holds of a secret is its hash; answers show a secret once."""

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        secrets = [PASSWORD, client.cookies["paqett_session"], person.csrf]
        made = await person.ask("POST", "/api-keys", json={"name": "k", "scopes": ["export"]})
        device = await person.ask("POST", "/devices", json={"thing_name": "x"})
        secrets += [made.json()["key"], device.json()["secret"]]
        secrets.append(await mailed(api.settings, person.email, "reset_password"))
        for path in ("/api-keys", "/devices", "/sessions"):
            text = (await person.ask("GET", path)).text
            assert not [secret for secret in secrets if secret in text], path
        with psycopg.connect(database_url) as conn:
            tables = conn.execute(
                "SELECT table_name FROM information_schema.tables"
                " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
            ).fetchall()
            assert len(tables) > 15
            for (table,) in tables:
                rows = conn.execute(f"SELECT t::text FROM {table} t").fetchall()
                text = "\n".join(row[0] for row in rows)
                assert not [secret for secret in secrets if secret in text], table

    api.run(work)


def test_a_header_of_an_answer_holds_nothing_a_stranger_wrote(api) -> None:
    """Header injection: neither paths nor parameters come back in one."""
    with AuthorizationServer() as github:
        environ = github.environ

    async def work(client: httpx.AsyncClient) -> None:
        for path in (
            "/api/v1/auth/%0d%0aSet-Cookie:%20x=y/start",
            "/api/v1/auth/github/start?return_to=/%0d%0aSet-Cookie:%20x=y",
            "/api/v1/devices/%0d%0aSet-Cookie:%20x=y",
            "/%0d%0aSet-Cookie:%20x=y",
        ):
            answer = await client.get(path, headers={"User-Agent": b"x\xe9"})
            assert "x=y" not in str(answer.headers.raw)

    api.run(work)
    assert environ


def test_sign_ins_and_refusals_are_logged_without_whom(api, owner) -> None:
    """When, what and which account by its number; the request's number joins the lines."""

    async def work(client: httpx.AsyncClient) -> None:
        with capture_logs(processors=[merge_contextvars]) as logs:
            person = await new_person(client, api.settings)
            await Person(client, person.email, "the wrong one").sign_in()
            await Person(client, "nobody@example.org", "the wrong one").sign_in()
            await client.get("/api/v1/plan", headers={"Authorization": "Bearer pqt_wrong"})
            key = await api.key(owner.account_id, "export")
            await client.get("/api/v1/plan", headers={"Authorization": f"Bearer {key}"})
        found = [line for line in logs if line["log_level"] == "info"]
        [signed_in, wrong, unknown, stranger, scope] = found
        assert (signed_in["event"], signed_in["method"]) == ("signed in", "password")
        assert (wrong["event"], wrong["account"]) == ("sign-in refused", signed_in["account"])
        assert (unknown["event"], unknown["account"]) == ("sign-in refused", None)
        assert (stranger["event"], stranger["code"]) == ("refused", "unauthorized")
        assert (scope["code"], scope["account"]) == ("missing_scope", owner.account_id)
        assert all(len(line["request_id"]) == 16 for line in found)
        assert not leaks_in(str(logs))

    api.run(work)


def test_a_provider_that_answers_with_a_redirect_is_not_followed() -> None:
    """Neither its code nor the app's secret goes anywhere but to the address of the settings."""
    asked: list[str] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        settings = with_url(
            "postgresql:///x",
            PAQETT_GITHUB__CLIENT_ID="x",
            PAQETT_GITHUB__CLIENT_SECRET="y",
            PAQETT_GITHUB__TOKEN_URL=f"http://127.0.0.1:{server.server_port}/token",
        )
        provider = oauth.providers(settings)["github"]
        try:
            with pytest.raises(oauth.ProviderFailed):
                asyncio.run(oauth.identify(provider, "code", "verifier", "http://test/back"))
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/token"]


def test_no_spelling_of_an_address_gives_more_attempts(api) -> None:
    """What the database takes for the same address counts as the same."""

    async def work(client: httpx.AsyncClient) -> None:
        await new_person(client, api.settings, "kim.filiz@example.org")
        spellings = [
            "kim.filiz@example.org", "KIM.FILIZ@EXAMPLE.ORG", "k\u0130m.filiz@example.org",
            "kim.f\u0130l\u0130z@example.org", "\u212aim.filiz@example.org",
        ]  # fmt: skip
        right = [await Person(client, spelling).sign_in() for spelling in spellings]
        assert {answer.status_code for answer in right} == {200}, "all of them are the account"
        tries = [Person(client, spelling, "the wrong one") for spelling in spellings * 3]
        answers = [(await wrong.sign_in()).status_code for wrong in tries]
        assert answers == [401] * 10 + [429] * 5

    api.run(work)
