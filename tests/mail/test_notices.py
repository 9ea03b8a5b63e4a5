"""What people are told, what of it is mailed, and how they say that it is enough."""

import asyncio
import re
from typing import Any

import httpx
import psycopg
import pytest

from paqett import app, db, keys, notices, sessions
from paqett.notice_events import EVENTS, OPTIONAL_KINDS, Event
from paqett.principals import SCOPES
from paqett.web.server import create_app
from paqett.web.session_cookie import cookie_name
from post import html, plain
from support import make_tenant

NOTICES = "/api/v1/notices"
PREFERENCES = "/api/v1/account/notification-preferences"
KINDS = ("device", "usage", "billing", "export", "security")
SIGN_IN = {
    "ip": "192.0.2.7",
    "agent": "Firefox",
    "time": "2026-11-25T12:00:00Z",
    "method": "github",
}


@pytest.fixture
def events(monkeypatch) -> None:
    """One more event for each kind that may be switched off, as later parts will add them."""
    for kind in OPTIONAL_KINDS:
        told = Event(kind, f"About {kind}", "{percent} of it.", {"Device": "device"})
        monkeypatch.setitem(EVENTS, f"test_{kind}", told)


@pytest.fixture
def ask(postman):
    """Asks the API for an account: with a key, for the preferences with a session; or as nobody."""

    def run(account: int | None, method: str, path: str, **more: Any) -> httpx.Response:
        devices = more.pop("devices", None)
        scopes = more.pop("scopes", ["account:read"])

        async def asked() -> httpx.Response:
            async with app.services(postman.settings, "test", lambda: postman.now) as services:
                headers = {}
                if account is not None and path == PREFERENCES and scopes == ["account:read"]:
                    async with db.transaction(services.pool) as conn:
                        how = sessions.Opening("password", "192.0.2.1", "test")
                        token = await sessions.open_session(conn, account, how, postman.now, 600)
                    headers = {
                        "Cookie": f"{cookie_name(services.settings)}={token}",
                        "X-CSRF-Token": sessions.csrf_token(token),
                    }
                elif account is not None:
                    async with db.transaction(services.pool) as conn:
                        key = await keys.create(conn, account, "test", scopes, devices, None)
                    headers = {"Authorization": f"Bearer {key.key}"}
                application = create_app(services)
                transport = httpx.ASGITransport(application)
                async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
                    answer = await client.request(method, path, headers=headers, **more)
                await application.state.door.close()
                return answer

        return asyncio.run(asked())

    return run


def tell(postman, account: int, event: str, **data: Any) -> None:
    postman.write(lambda conn: notices.notify(conn, account, event, **data))


def test_notices_are_listed_newest_first_in_pages_and_by_kind(postman, person, ask, events) -> None:
    ann, eve = person(), person("eve@example.org")
    tell(postman, ann.id, "new_sign_in", **SIGN_IN)
    for number in range(3):
        tell(postman, ann.id, "test_usage", percent=80 + number)
    tell(postman, eve.id, "password_changed")
    first = ask(ann.id, "GET", NOTICES, params={"limit": 2}).json()
    assert [item["text"] for item in first["items"]] == ["82 of it.", "81 of it."]
    rest = ask(ann.id, "GET", NOTICES, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["event"] for item in rest["items"]] == ["test_usage", "new_sign_in"]
    assert rest["next_cursor"] is None
    item = rest["items"][1]
    assert set(item) == {
        "id", "kind", "event", "title", "text", "data", "created_at", "read_at",
    }  # fmt: skip
    assert (item["kind"], item["title"], item["data"], item["read_at"]) == (
        "security", "New sign-in to your account", SIGN_IN, None,
    )  # fmt: skip
    security = ask(ann.id, "GET", NOTICES, params={"kind": "security"}).json()
    assert [item["event"] for item in security["items"]] == ["new_sign_in"]


def test_a_key_for_certain_devices_sees_what_is_about_these(postman, ask, events) -> None:
    tenant = make_tenant(postman.url, "owner")
    mine, other = tenant.devices
    for device in (mine, other, None):
        tell(postman, tenant.account_id, "test_device", percent=1, device=device)
    tell(postman, tenant.account_id, "password_changed")
    seen = ask(tenant.account_id, "GET", NOTICES, devices=[mine]).json()
    assert [item["data"]["device"] for item in seen["items"]] == [mine]
    assert len(ask(tenant.account_id, "GET", NOTICES).json()["items"]) == 4


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 19, "\0", "\u0661", "", "1 "])
def test_a_cursor_that_is_not_ours_is_422(person, ask, cursor) -> None:
    answer = ask(person().id, "GET", NOTICES, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


@pytest.mark.parametrize("params", [{"kind": "gossip"}, {"limit": 0}, {"limit": 1001}])
def test_a_wrong_parameter_is_422(person, ask, params) -> None:
    assert ask(person().id, "GET", NOTICES, params=params).status_code == 422


def test_strangers_and_keys_without_the_scope_get_nothing(person, ask) -> None:
    ann = person()
    for method, path in (("GET", NOTICES), ("GET", PREFERENCES), ("PUT", PREFERENCES)):
        body = {"json": {}} if method == "PUT" else {}
        assert ask(None, method, path, **body).status_code == 401
        assert ask(ann.id, method, path, scopes=["devices:read"], **body).status_code == 403
    everything = sorted(SCOPES)
    assert ask(ann.id, "GET", NOTICES, scopes=everything).status_code == 200
    # what a person chose is theirs, whatever a key may do
    assert ask(ann.id, "GET", PREFERENCES, scopes=everything).status_code == 403


def test_a_notice_of_a_later_version_is_told_by_its_name(postman, person, ask) -> None:
    ann = person()
    postman.rows(
        "INSERT INTO notice (account_id, kind, event) VALUES (%s, 'device', 'disk_full')", ann.id
    )
    (item,) = ask(ann.id, "GET", NOTICES).json()["items"]
    assert (item["title"], item["text"]) == ("Disk full", "")


def test_everything_is_mailed_until_it_is_switched_off(postman, person, ask, events) -> None:
    ann, bob = person(), person("bob@example.org")
    everything = {kind: {"mail": True, "webhook": kind != "security"} for kind in KINDS}
    assert ask(ann.id, "GET", PREFERENCES).json() == everything
    changed = ask(ann.id, "PUT", PREFERENCES, json={"usage": {"mail": False}})
    assert changed.status_code == 200
    assert changed.json() == {**everything, "usage": {"mail": False, "webhook": True}}
    assert ask(ann.id, "PUT", PREFERENCES, json={}).json() == changed.json()
    assert ask(bob.id, "GET", PREFERENCES).json() == everything
    for kind in OPTIONAL_KINDS:
        tell(postman, ann.id, f"test_{kind}", percent=1)
    tell(postman, bob.id, "test_usage", percent=1)
    postman.work()
    assert sorted((mail["To"], mail["Subject"]) for mail in postman.written()) == [
        (ann.email, "About billing"), (ann.email, "About device"), (ann.email, "About export"),
        (bob.email, "About usage"),
    ]  # fmt: skip
    assert len(ask(ann.id, "GET", NOTICES).json()["items"]) == 4  # the list has them all
    assert ask(ann.id, "PUT", PREFERENCES, json={"usage": {"mail": True}}).json() == everything


def test_what_is_switched_off_before_it_is_sent_is_not_sent(postman, person, ask, events) -> None:
    ann = person()
    tell(postman, ann.id, "test_device", percent=1)
    ask(ann.id, "PUT", PREFERENCES, json={"device": {"mail": False}})
    postman.work()
    assert postman.written() == []


def test_security_cannot_be_switched_off(postman, person, ask) -> None:
    ann = person()
    answer = ask(
        ann.id, "PUT", PREFERENCES, json={"usage": {"mail": False}, "security": {"mail": False}}
    )
    assert (answer.status_code, answer.json()["field"]) == (422, "security")
    assert ask(ann.id, "GET", PREFERENCES).json()["usage"]["mail"]
    assert ask(ann.id, "PUT", PREFERENCES, json={"security": {"mail": True}}).status_code == 200
    with pytest.raises(psycopg.errors.CheckViolation):
        postman.rows("INSERT INTO notification_preference VALUES (%s, 'security', false)", ann.id)
    tell(postman, ann.id, "password_changed")
    postman.work()
    assert len(postman.written()) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"gossip": {"mail": True}},
        {"usage": {"mail": "no"}},
        {"usage": False},
        {"usage": {"mail": True, "sms": True}},
        [],
        None,
    ],
)
def test_preferences_that_are_none_are_422(person, ask, body) -> None:
    answer = ask(person().id, "PUT", PREFERENCES, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_wrong_field_is_named_with_the_object_it_is_in(person, ask) -> None:
    ann = person()
    for body, field in (
        ({"fax": {}}, "fax"),
        ({"usage": {"mail": "no"}}, "usage.mail"),
        ({"usage": {"fax": True}}, "usage.fax"),
    ):
        assert ask(ann.id, "PUT", PREFERENCES, json=body).json()["field"] == field


def test_an_event_nobody_knows_or_without_its_data_is_an_error(postman, person, events) -> None:
    ann = person()
    with pytest.raises(KeyError):
        tell(postman, ann.id, "gossip")
    with pytest.raises(KeyError, match="percent"):
        tell(postman, ann.id, "test_usage")
    assert postman.rows("SELECT * FROM notice") == []


def test_a_notice_exists_exactly_when_its_event_does(postman, person) -> None:
    ann = person()

    async def fail(conn) -> None:
        await notices.notify(conn, ann.id, "password_changed")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        postman.write(fail)
    assert postman.rows("SELECT * FROM notice") == []
    assert postman.rows("SELECT * FROM procrastinate_jobs") == []


def test_what_comes_from_outside_is_cut_and_stripped(postman, person) -> None:
    ann = person()
    tell(postman, ann.id, "new_sign_in", **{**SIGN_IN, "agent": "a\0\r\n\x1b[31m" + "b" * 5000})
    ((data,),) = postman.rows("SELECT data FROM notice")
    assert data["agent"].isprintable()
    assert len(data["agent"]) <= 512


def test_a_changed_address_is_told_at_the_old_one_which_is_then_forgotten(
    postman, person, ask
) -> None:
    ann = person("new@example.org")
    tell(postman, ann.id, "email_changed", to_old="old@example.org")
    assert postman.rows("SELECT mail_to FROM notice") == [("old@example.org",)]
    assert "old@" not in str(postman.rows("SELECT * FROM procrastinate_jobs"))
    postman.work()
    assert [mail["To"] for mail in postman.written()] == ["old@example.org"]
    assert "new@example.org" not in plain(postman.written()[0])  # whoever reads there now
    assert postman.rows("SELECT mail_to FROM notice") == [(None,)]
    assert "old@" not in ask(ann.id, "GET", NOTICES).text


def test_an_old_address_that_takes_no_mail_is_forgotten_after_30_days(postman, person) -> None:
    from paqett.worker import upkeep

    ann = person("new@example.org")
    tell(postman, ann.id, "email_changed", to_old="old@example.org")
    postman.later(days=29)
    postman.do(upkeep.forget_notices)
    assert len(postman.rows("SELECT * FROM notice")) == 1
    postman.later(days=1, minutes=1)
    postman.do(upkeep.forget_notices)
    assert postman.rows("SELECT * FROM notice") == []


def link_of(postman) -> str:
    return str(postman.written()[-1]["List-Unsubscribe"])[1:-1].removeprefix(
        "https://telemetry.example.org"
    )


def test_one_click_in_a_mail_program_is_enough_and_may_be_repeated(
    postman, person, ask, events
) -> None:
    ann = person()
    tell(postman, ann.id, "test_usage", percent=80)
    postman.work()
    link = link_of(postman)
    one_click = {"data": {"List-Unsubscribe": "One-Click"}}
    for _ in range(2):
        answer = ask(None, "POST", link, **one_click)
        assert answer.status_code == 200
        assert "usage" in answer.text
        assert not ask(ann.id, "GET", PREFERENCES).json()["usage"]["mail"]
    boundary = {"files": {"List-Unsubscribe": (None, "One-Click")}}
    assert ask(None, "POST", link, **boundary).status_code == 200
    others = ask(ann.id, "GET", PREFERENCES).json()
    assert [kind for kind, value in others.items() if not value["mail"]] == ["usage"]
    tell(postman, ann.id, "test_usage", percent=90)
    postman.work()
    assert len(postman.written()) == 1


def test_a_person_is_shown_a_button_and_looking_changes_nothing(
    postman, person, ask, events
) -> None:
    ann = person()
    tell(postman, ann.id, "test_device", percent=80)
    postman.work()
    (shown,) = re.findall(r'href="([^"]+unsubscribe[^"]+)"', html(postman.written()[0]))
    page = ask(None, "GET", shown.removeprefix("https://telemetry.example.org"))
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-store"
    assert ask(ann.id, "GET", PREFERENCES).json()["device"]["mail"]
    (action,) = re.findall(r'<form method="post" action="([^"]+)">', page.text)
    assert ask(None, "POST", action).status_code == 200
    assert not ask(ann.id, "GET", PREFERENCES).json()["device"]["mail"]


def test_a_link_is_good_for_its_account_and_kind_alone(postman, person, ask, events) -> None:
    ann, eve = person(), person("eve@example.org")
    tell(postman, eve.id, "test_usage", percent=80)
    postman.work()
    number, kind, signature = link_of(postman).partition("token=")[2].split(".")
    assert (int(number), kind) == (eve.id, "usage")
    forged = [
        f"{ann.id}.usage.{signature}", f"{eve.id}.billing.{signature}",
        f"{eve.id}.security.{signature}", f"{eve.id}.usage.", f"{eve.id}.usage",
        f"{eve.id}.usage.x",
        f"{eve.id}.usage.{signature}x", f"{eve.id}.usage.{signature[:-1]}", f"{eve.id}.usage.ü",
        f"0{eve.id}.usage.{signature}", f"999999.usage.{signature}", f"x.usage.{signature}",
        f"{'9' * 40}.usage.{signature}", "", ".", "..", "<script>", "\0", f"-1.usage.{signature}",
    ]  # fmt: skip
    answers = set()
    for token in forged:
        for method in ("GET", "POST"):
            answer = ask(None, method, "/unsubscribe", params={"token": token})
            assert "<script>" not in answer.text  # the page has one of its own, with a src
            answers.add((answer.status_code, answer.text))
    # the same words whether there is such an account or not
    assert len(answers) == 1
    assert next(iter(answers))[0] == 404
    assert postman.rows("SELECT * FROM notification_preference") == []


def test_accounts_have_secrets_of_their_own(postman, person) -> None:
    people = [person(f"p{n}@example.org") for n in range(20)]
    secrets = {
        bytes(secret) for (secret,) in postman.rows("SELECT unsubscribe_secret FROM account")
    }
    assert len(secrets) == len(people)
    assert {len(secret) for secret in secrets} == {32}


def test_a_link_ends_with_its_account(postman, person, ask, events) -> None:
    ann = person()
    tell(postman, ann.id, "test_usage", percent=80)
    postman.work()
    postman.rows("DELETE FROM account WHERE id = %s", ann.id)
    assert ask(None, "POST", link_of(postman)).status_code == 404
    assert postman.rows("SELECT * FROM notice") == []
