"""Registration, sign-in, sessions and what guards them, over HTTP."""

import asyncio
from datetime import datetime, timedelta

import bcrypt
import httpx
import psycopg
import pytest

from paqett import db
from paqett.app import utc_now
from paqett.broker import record
from paqett.broker.record import Event
from people import PASSWORD, Person, mailed, new_person, register

KEY = {"name": "k", "scopes": ["telemetry:read"]}


def rows(url: str, text: str, *values: object) -> list[tuple]:
    with psycopg.connect(url) as conn:
        return conn.execute(text, values).fetchall()


def change(url: str, text: str, *values: object) -> None:
    with psycopg.connect(url) as conn:
        conn.execute(text, values)


def jobs(url: str) -> list[dict]:
    return [row[0] for row in rows(url, "SELECT args FROM procrastinate_jobs ORDER BY id")]


# --- registration ---------------------------------------------------------------------------------


def test_a_registration_counts_once_its_mail_is_answered(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await register(
            client, "Ada@Example.org", first_name="Ada", surname="L", time_zone="Europe/London"
        )
        assert (answer.status_code, answer.json()) == (202, {"status": "verification_sent"})
        person = Person(client, "ada@example.org")
        refused = await person.sign_in()
        assert (refused.status_code, refused.json()["code"]) == (403, "email_not_verified")
        token = await mailed(api.settings, "ada@example.org", "verify_email")
        for status in (200, 422):
            answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
            assert answer.status_code == status
        assert (await person.sign_in()).status_code == 200
        mine = (await person.ask("GET", "/account")).json()
        assert mine["email"] == "Ada@Example.org"
        assert (mine["first_name"], mine["surname"], mine["time_zone"]) == (
            "Ada", "L", "Europe/London",
        )  # fmt: skip
        assert mine["age_confirmed_at"]
        assert mine["policy_version"]
        assert mine["policy_accepted_at"]
        assert mine["has_password"]
        assert mine["plan"] == "own"

    api.run(work)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"email": "no address"}, "email"),
        ({"email": "a@b\r\nBcc: x@y"}, "email"),
        ({"email": "a@b\n"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 129}, "password"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"age_confirmed": False}, "age_confirmed"),
        ({"first_name": "a\nb"}, "first_name"),
        ({"first_name": ""}, "first_name"),
        ({"plan": "paid"}, None),
    ],
)
def test_a_wrong_registration_is_told_what_is_wrong(api, more, field) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await register(client, **{"email": "ada@example.org", **more})
        assert answer.status_code == 422
        assert answer.json()["code"] == "invalid"
        if field:
            assert answer.json()["field"] == field
        assert more.get("password", "x" * 8) not in answer.text

    api.run(work)


@pytest.mark.parametrize(
    "password", ["password", "PassWord1", "iloveyou1", "ada@example.org", "paqett123"]
)
def test_a_password_that_everybody_tries_is_refused(api, password) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await register(client, "ada@example.org", password=password)
        assert (answer.status_code, answer.json()["code"]) == (422, "password_common")

    api.run(work)


def test_a_password_has_no_rules_but_its_length(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for number, password in enumerate(
            ("        z", "пароль и ещё", "🦊" * 100, "x" * 127 + "y")
        ):
            email = f"p{number}@example.org"
            person = await new_person(client, api.settings, email, password=password)
            assert (await person.ask("GET", "/account")).status_code == 200

    api.run(work)


def test_a_registration_of_an_address_with_an_account_looks_the_same(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        before = rows(database_url, "SELECT password_hash FROM account ORDER BY id")
        known = await register(client, "ADA@example.org", password="another one entirely")
        unknown = await register(client, "bob@example.org", password="another one entirely")
        assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
        assert rows(database_url, "SELECT password_hash FROM account ORDER BY id")[:1] == before
        assert (await person.sign_in()).status_code == 200
        templates = [job["template"] for job in jobs(database_url) if "template" in job]
        assert templates[-2:] == ["already_registered", "verify_email"]

    api.run(work)


def test_who_registers_a_strangers_address_gains_nothing(api) -> None:
    """The stranger's own later registration replaces the password and the token."""

    async def work(client: httpx.AsyncClient) -> None:
        await register(client, "ada@example.org", password="the attacker's own")
        old = await mailed(api.settings, "ada@example.org", "verify_email")
        await register(client, "ada@example.org")
        new = await mailed(api.settings, "ada@example.org", "verify_email")
        for token, status in ((old, 422), (new, 200)):
            answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
            assert answer.status_code == status
        attacker = Person(client, "ada@example.org", "the attacker's own")
        assert (await attacker.sign_in()).status_code == 401
        assert (await Person(client, "ada@example.org").sign_in()).status_code == 200

    api.run(work)


def test_registration_can_be_closed(settings, make_api) -> None:
    api = make_api(PAQETT_AUTH__OPEN_REGISTRATION="false")

    async def work(client: httpx.AsyncClient) -> None:
        answer = await register(client, "ada@example.org")
        assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")

    api.run(work)


# --- signing in -----------------------------------------------------------------------------------


def test_the_cookie_is_for_this_site_alone(api, make_api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        cookie = (await person.sign_in()).headers["set-cookie"]
        assert cookie.startswith("paqett_session=")
        for word in ("HttpOnly", "SameSite=lax", "Path=/", "Max-Age=7776000"):
            assert word.lower() in cookie.lower()
        assert "domain" not in cookie.lower()

    async def under_tls(client: httpx.AsyncClient) -> None:
        answer = await Person(client, "ada@example.org").sign_in()
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-paqett_session=")
        assert "; Secure" in cookie

    api.run(work)
    make_api(PAQETT_PAQETT__PUBLIC_URL="https://paqett.example").run(under_tls)


def test_a_refused_sign_in_says_the_same_for_known_and_unknown_addresses(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await new_person(client, api.settings)
        client.cookies.clear()
        answers = []
        for email in ("ada@example.org", "nobody@example.org", "no address", ""):
            before = api.hasher.hashed
            body = {"email": email, "password": "not this one"}
            answer = await client.post("/api/v1/auth/login", json=body)
            assert api.hasher.hashed == before + 1
            answers.append((answer.status_code, answer.content))
            assert answer.json()["code"] == "invalid_credentials"
        assert len(set(answers)) == 1
        assert answers[0][0] == 401
        for wrong in ({"email": "x" * 300}, {"email": "\x00"}, {"password": "x" * 513}):
            body = {"email": "a@b", "password": "x", **wrong}
            assert (await client.post("/api/v1/auth/login", json=body)).status_code == 422

    api.run(work)


def test_a_bcrypt_hash_signs_in_once_and_is_rehashed(api, database_url) -> None:
    long = "an old password, longer than the 72 bytes that bcrypt has ever read of one"
    imported = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4)).decode()

    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        change(database_url, "UPDATE account SET password_hash = %s", imported)
        person.password = "wrong"
        assert (await person.sign_in()).status_code == 401
        person.password = long
        assert (await person.sign_in()).status_code == 200
        ((stored,),) = rows(database_url, "SELECT password_hash FROM account")
        assert stored.startswith("$argon2id$")
        assert (await person.sign_in()).status_code == 200

    api.run(work)


def test_new_parameters_rehash_at_the_next_sign_in(api, make_api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await new_person(client, api.settings)

    async def again(client: httpx.AsyncClient) -> None:
        assert (await Person(client, "ada@example.org").sign_in()).status_code == 200

    api.run(work)
    ((before,),) = rows(database_url, "SELECT password_hash FROM account")
    make_api(PAQETT_AUTH__ARGON2_MEMORY_KIB="64").run(again)
    ((after,),) = rows(database_url, "SELECT password_hash FROM account")
    assert "m=8," in before
    assert "m=64," in after


def test_a_session_that_was_fixed_beforehand_is_worth_nothing(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        client.cookies.set("paqett_session", "chosen-by-somebody-else")
        assert (await client.get("/api/v1/account")).status_code == 401
        first = (await person.sign_in()).cookies["paqett_session"]
        client.cookies.clear()
        client.cookies.set("paqett_session", first)
        assert first != "chosen-by-somebody-else"
        second = (await person.sign_in()).cookies["paqett_session"]
        client.cookies.clear()
        for token, status in ((first, 401), (second, 200)):
            headers = {"Cookie": f"paqett_session={token}"}
            assert (await client.get("/api/v1/account", headers=headers)).status_code == status
        stored = b"".join(
            row[0] for row in rows(database_url, "SELECT hash FROM session WHERE hash IS NOT NULL")
        )
        assert second.encode() not in stored

    api.run(work)


def test_after_signing_out_the_cookie_opens_nothing(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        token = client.cookies["paqett_session"]
        answer = await person.ask("POST", "/auth/logout")
        assert answer.status_code == 204
        assert "Max-Age=0" in answer.headers["set-cookie"]
        headers = {"Cookie": f"paqett_session={token}", "X-CSRF-Token": person.csrf}
        for method, path in (("GET", "/account"), ("POST", "/auth/logout"), ("GET", "/devices")):
            answer = await client.request(method, f"/api/v1{path}", headers=headers)
            assert answer.status_code == 401

    api.run(work)


def test_a_session_ends_when_it_is_idle_and_in_any_case(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        api.later(timedelta(days=13))
        assert (await person.ask("GET", "/account")).status_code == 200
        api.later(timedelta(days=15))
        assert (await person.ask("GET", "/account")).status_code == 401
        await person.sign_in()
        for _ in range(9):
            api.later(timedelta(days=10) - timedelta(minutes=1))
            assert (await person.ask("GET", "/account")).status_code == 200
        api.later(timedelta(days=1))
        assert (await person.ask("GET", "/account")).status_code == 401

    api.run(work)


def test_the_session_opens_what_a_key_opens(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        made = await person.ask("POST", "/devices", json={"thing_name": "probe"})
        assert made.status_code == 201
        device = made.json()["id"]
        for path in ("", "/latest", "/telemetry", "/events", "/metrics"):
            assert (await person.ask("GET", f"/devices/{device}{path}")).status_code == 200
        for path in ("/usage", "/plan", "/sessions", "/api-keys"):
            assert (await person.ask("GET", path)).status_code == 200

    api.run(work)


def test_a_write_by_cookie_needs_the_sessions_token(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        told = (await client.get("/api/v1/account")).headers["x-csrf-token"]
        assert told == person.csrf
        for sent in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": "ä"}):
            raw = {name: value.encode() for name, value in sent.items()}
            answer = await client.post(
                "/api/v1/devices", json={"thing_name": "forged"}, headers=raw
            )
            assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")
        assert (await person.ask("GET", "/devices")).json()["items"] == []
        other = await new_person(client, api.settings, "bob@example.org")
        person.client.cookies.clear()
        await person.sign_in()
        answer = await client.post(
            "/api/v1/devices", json={"thing_name": "x"}, headers={"X-CSRF-Token": other.csrf}
        )
        assert answer.status_code == 403

    api.run(work)


def test_a_bearer_key_needs_no_csrf_token_even_beside_a_cookie(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        wanted = {"name": "k", "scopes": ["devices:write"]}
        key = (await person.ask("POST", "/api-keys", json=wanted)).json()["key"]
        headers = {"Authorization": f"Bearer {key}"}
        answer = await client.post("/api/v1/devices", json={"thing_name": "a"}, headers=headers)
        assert answer.status_code == 201
        wrong = {"Authorization": "Bearer pqt_nonsense", "X-CSRF-Token": person.csrf}
        assert (await client.get("/api/v1/account", headers=wrong)).status_code == 401

    api.run(work)


# --- sessions -------------------------------------------------------------------------------------


def test_a_person_sees_and_ends_their_own_sessions_only(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        ada = await new_person(client, api.settings)
        mine = (await ada.ask("GET", "/sessions")).json()["items"]
        assert [session["current"] for session in mine] == [True]
        assert mine[0]["ip"] == "127.0.0.1"
        assert mine[0]["agent"].startswith("python-httpx")
        client.cookies.clear()
        bob = await new_person(client, api.settings, "bob@example.org")
        assert (await bob.ask("DELETE", f"/sessions/{mine[0]['id']}")).status_code == 404
        client.cookies.clear()
        await ada.sign_in()
        old, new = mine[0]["id"], (await ada.ask("GET", "/sessions")).json()["items"][0]["id"]
        assert (await ada.ask("DELETE", f"/sessions/{old}")).status_code == 204
        assert (await ada.ask("DELETE", f"/sessions/{old}")).status_code == 404
        assert (await ada.ask("DELETE", f"/sessions/{new}")).status_code == 204
        assert (await ada.ask("GET", "/account")).status_code == 401

    api.run(work)


def test_all_sessions_end_at_once(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        ada = await new_person(client, api.settings)
        first = client.cookies["paqett_session"]
        client.cookies.clear()
        await ada.sign_in()
        assert (await ada.ask("DELETE", "/sessions")).status_code == 204
        for token in (first, client.cookies["paqett_session"]):
            client.cookies.clear()
            headers = {"Cookie": f"paqett_session={token}"}
            assert (await client.get("/api/v1/account", headers=headers)).status_code == 401

    api.run(work)


def test_an_unknown_address_that_signs_in_is_told_to_the_person(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        await person.sign_in()
        assert events(database_url) == []
        change(database_url, "UPDATE session SET ip = '203.0.113.9'")
        await person.sign_in()
        assert events(database_url) == ["new_sign_in"]
        await person.sign_in()
        assert events(database_url) == ["new_sign_in"]

    api.run(work)


def events(url: str) -> list[str]:
    return [row[0] for row in rows(url, "SELECT event FROM notice ORDER BY id")]


# --- passwords and addresses ----------------------------------------------------------------------


def test_a_reset_sets_the_password_once_and_ends_every_session(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        answers = [
            await client.post("/api/v1/auth/password-reset", json={"email": email})
            for email in ("ada@example.org", "nobody@example.org")
        ]
        assert {(a.status_code, a.content) for a in answers} == {(202, b'{"status":"reset_sent"}')}
        asked = [job for job in jobs(database_url) if job.get("template") == "reset_password"]
        assert len(asked) == 2
        assert "example.org" not in str(asked)
        token = await mailed(api.settings, "ada@example.org", "reset_password")
        body = {"token": token, "password": "a different one"}
        for weak in ("short", "password"):
            answer = await client.post(
                "/api/v1/auth/password-reset/confirm", json={**body, "password": weak}
            )
            assert answer.status_code == 422
        for status in (200, 422):
            answer = await client.post("/api/v1/auth/password-reset/confirm", json=body)
            assert answer.status_code == status
        assert (await person.ask("GET", "/account")).status_code == 401
        assert (await person.sign_in()).status_code == 401
        person.password = "a different one"
        assert (await person.sign_in()).status_code == 200
        assert events(database_url) == ["password_changed"]

    api.run(work)


def test_tokens_are_for_one_purpose_and_expire(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await new_person(client, api.settings)
        token = await mailed(api.settings, "ada@example.org", "reset_password")
        answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
        assert answer.status_code == 422
        api.later(timedelta(hours=2))
        body = {"token": token, "password": "a different one"}
        answer = await client.post("/api/v1/auth/password-reset/confirm", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, "token")

    api.run(work)


def test_two_uses_of_a_token_at_once_are_one(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await new_person(client, api.settings)
        token = await mailed(api.settings, "ada@example.org", "reset_password")
        answers = await asyncio.gather(
            *(
                client.post(
                    "/api/v1/auth/password-reset/confirm",
                    json={"token": token, "password": f"a different one {number}"},
                )
                for number in range(5)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200, 422, 422, 422, 422]

    api.run(work)


def test_a_new_password_ends_the_other_sessions_and_renews_this_one(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        other = client.cookies["paqett_session"]
        client.cookies.clear()
        await person.sign_in()
        before = client.cookies["paqett_session"]
        wrong = {"current_password": "not this", "password": "a different one"}
        assert (await person.ask("POST", "/account/password", json=wrong)).status_code == 401
        right = {"current_password": PASSWORD, "password": "a different one"}
        answer = await person.ask("POST", "/account/password", json=right)
        assert answer.status_code == 200
        person.csrf = answer.json()["csrf_token"]
        assert (await person.ask("GET", "/account")).status_code == 200
        client.cookies.clear()
        for token in (other, before):
            headers = {"Cookie": f"paqett_session={token}"}
            assert (await client.get("/api/v1/account", headers=headers)).status_code == 401
        assert events(database_url) == ["password_changed"]

    api.run(work)


def test_a_new_address_counts_when_its_mail_is_answered_and_the_old_one_is_told(
    api, database_url
) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        answer = await person.ask("POST", "/account/email", json={"email": "new@example.org"})
        assert answer.status_code == 202
        assert (await person.ask("GET", "/account")).json()["email"] == "ada@example.org"
        token = await mailed(api.settings, "ada@example.org", "change_email", to="new@example.org")
        answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
        assert answer.json() == {"email": "new@example.org"}
        assert (await person.ask("GET", "/account")).json()["email"] == "new@example.org"
        assert events(database_url) == ["email_changed"]

    api.run(work)


def test_an_address_of_somebody_elses_is_not_to_be_had(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await new_person(client, api.settings, "bob@example.org")
        person = await new_person(client, api.settings)
        answers = [
            await person.ask("POST", "/account/email", json={"email": email})
            for email in ("BOB@example.org", "free@example.org")
        ]
        assert len({(a.status_code, a.content) for a in answers}) == 1
        token = await mailed(api.settings, "ada@example.org", "change_email", to="bob@example.org")
        answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
        assert (answer.status_code, answer.json()["field"]) == (422, "token")

    api.run(work)


def test_sensitive_steps_need_a_recent_proof(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        api.later(timedelta(minutes=16))
        steps = [
            ("/api-keys", KEY),
            ("/account/email", {"email": "new@example.org"}),
            ("/account/password", {"password": "a different one"}),
        ]
        for path, body in steps:
            answer = await person.ask("POST", path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (403, "reauthentication_required")
        for proof in ({"password": "wrong"}, {}, {"code": "12345678"}):
            answer = await person.ask("POST", "/auth/reauthenticate", json=proof)
            assert answer.status_code in (401, 422)
        before = client.cookies["paqett_session"]
        answer = await person.ask("POST", "/auth/reauthenticate", json={"password": PASSWORD})
        assert answer.status_code == 200
        person.csrf = answer.json()["csrf_token"]
        assert client.cookies["paqett_session"] != before
        for path, body in steps[:2]:
            assert (await person.ask("POST", path, json=body)).status_code in (201, 202)

    api.run(work)


def test_who_has_no_password_proves_themselves_by_a_mailed_code(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        change(database_url, "UPDATE account SET password_hash = NULL")
        api.later(timedelta(minutes=16))
        answer = await person.ask("POST", "/auth/reauthenticate", json={})
        assert (answer.status_code, answer.json()) == (202, {"status": "code_sent"})
        code = await mailed(api.settings, "ada@example.org", "code", now=api.now())
        assert len(code) == 8
        wrong = f"{(int(code) + 1) % 10**8:08}"
        for sent, status in ((wrong, 422), (code, 200)):
            answer = await person.ask("POST", "/auth/reauthenticate", json={"code": sent})
            assert answer.status_code == status
        person.csrf = answer.json()["csrf_token"]
        again = await person.ask("POST", "/auth/reauthenticate", json={"code": code})
        assert again.status_code == 422
        assert (await person.ask("POST", "/api-keys", json=KEY)).status_code == 201
        body = {"password": "my first password"}
        assert (await person.ask("POST", "/account/password", json=body)).status_code == 200
        person.password = "my first password"
        assert (await person.sign_in()).status_code == 200

    api.run(work)


def test_every_field_can_be_put_right(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings, first_name="Ad", surname="Lovelace")
        body = {"first_name": "Ada", "surname": None, "time_zone": "Asia/Kathmandu"}
        changed = (await person.ask("PATCH", "/account", json=body)).json()
        assert {name: changed[name] for name in body} == body
        kept = (await person.ask("PATCH", "/account", json={"surname": "King"})).json()
        assert (kept["first_name"], kept["surname"]) == ("Ada", "King")
        for wrong in ({"time_zone": "x"}, {"email": "a@b.c"}, {"plan": "paid"}, {"operator": True}):
            assert (await person.ask("PATCH", "/account", json=wrong)).status_code == 422

    api.run(work)


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_ends_on_the_next_request(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        made = await person.ask("POST", "/api-keys", json={**KEY, "scopes": ["devices:read"]})
        assert made.status_code == 201
        key = made.json()["key"]
        assert key.startswith("pqt_")
        listed = await person.ask("GET", "/api-keys")
        assert key not in listed.text
        assert [item["hint"] for item in listed.json()["items"]] == [key[:8]]
        asker = {"Authorization": f"Bearer {key}", "Cookie": ""}
        assert (await client.get("/api/v1/devices", headers=asker)).status_code == 200
        (used,) = (await person.ask("GET", "/api-keys")).json()["items"]
        assert used["last_used_at"]
        assert used["last_used_ip"] == "127.0.0.1"
        path = f"/api-keys/{made.json()['id']}"
        assert (await person.ask("DELETE", path)).status_code == 204
        assert (await person.ask("DELETE", path)).status_code == 404
        assert (await client.get("/api/v1/devices", headers=asker)).status_code == 401
        assert events(database_url) == ["key_created", "key_deleted"]

    api.run(work)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"device_ids": []}, "device_ids"),
        ({"device_ids": ["nosuchdevice"]}, "device_ids"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"name": ""}, "name"),
    ],
)
def test_a_wrong_key_is_told_what_is_wrong(api, more, field) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        answer = await person.ask("POST", "/api-keys", json={**KEY, **more})
        assert (answer.status_code, answer.json().get("field")) == (422, field)

    api.run(work)


def test_a_key_expires(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        until = (utc_now() + timedelta(hours=1)).isoformat()
        body = {**KEY, "scopes": ["devices:read"], "expires_at": until}
        key = (await person.ask("POST", "/api-keys", json=body)).json()["key"]
        headers = {"Authorization": f"Bearer {key}"}
        assert (await client.get("/api/v1/devices", headers=headers)).status_code == 200
        api.later(timedelta(hours=2))
        assert (await client.get("/api/v1/devices", headers=headers)).status_code == 401

    api.run(work)


def test_a_key_for_another_accounts_device_cannot_be_made(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        body = {**KEY, "device_ids": owner.devices}
        answer = await person.ask("POST", "/api-keys", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, "device_ids")

    api.run(work)


def test_a_devices_secret_tells_its_last_use_over_http_and_mqtt(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        made = (await person.ask("POST", "/devices", json={"thing_name": "d"})).json()
        assert (made["secret_used_at"], made["secret_used_ip"]) == (None, None)
        url = f"/api/v1/devices/{made['id']}/telemetry"
        await client.post(url, json={"t": 1}, auth=(made["id"], "wrong"))
        assert (await device(person, made["id"]))["secret_used_at"] is None
        await client.post(url, json={"t": 1}, auth=(made["id"], made["secret"]))
        shown = await device(person, made["id"])
        assert shown["secret_used_ip"] == "127.0.0.1"
        later = datetime.fromisoformat(shown["secret_used_at"]) + timedelta(hours=1)
        async with await db.connect(api.settings.database, "test", autocommit=True) as conn:
            events = [
                (later, Event("connected", made["id"], None, "203.0.113.7")),
                (later + timedelta(seconds=1), Event("disconnected", made["id"], None, None)),
                (later + timedelta(seconds=2), Event("refused", made["id"], "x", "203.0.113.8")),
            ]
            await record.write(conn, events)
        shown = await device(person, made["id"])
        assert datetime.fromisoformat(shown["secret_used_at"]) == later
        assert shown["secret_used_ip"] == "203.0.113.7"

    api.run(work)


async def device(person: Person, device_id: str) -> dict:
    return (await person.ask("GET", f"/devices/{device_id}")).json()


# --- disabled accounts ----------------------------------------------------------------------------


def test_a_disabled_account_is_left_with_export_and_deletion(api, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        body = {"name": "k", "scopes": ["devices:read", "telemetry:write"]}
        key = (await person.ask("POST", "/api-keys", json=body)).json()["key"]
        made = (await person.ask("POST", "/devices", json={"thing_name": "d"})).json()
        change(database_url, "UPDATE account SET disabled_at = now()")
        answer = await person.ask("GET", "/devices")
        assert (answer.status_code, answer.json()["code"]) == (403, "account_disabled")
        assert (await person.ask("GET", "/account")).status_code == 200
        assert (await person.sign_in()).status_code == 200
        headers = {"Authorization": f"Bearer {key}"}
        answer = await client.get("/api/v1/devices", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "account_disabled")
        url = f"/api/v1/devices/{made['id']}/telemetry"
        answer = await client.post(url, json={"t": 1}, auth=(made["id"], made["secret"]))
        assert (answer.status_code, answer.json()["code"]) == (403, "device_disabled")

    api.run(work)
