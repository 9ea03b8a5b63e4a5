"""Deleting an account: what ends at once, what can be undone, and who may do it."""

import asyncio
import base64
from datetime import datetime, timedelta

import httpx
import psycopg
import pytest

from leaving import Leaving
from paqett import accounts, db, grafana, keys, notices
from paqett.erasure import steps
from paqett.errors import Conflict
from paqett.grafana import Place
from paqett.principals import SCOPES
from paqett.readings.directory import Directory
from paqett.sqlfiles import query
from paqett.worker import alerts
from people import PASSWORD, Person, mailed
from stacks import until

IN_7_DAYS = timedelta(days=7)


def basic(device: dict) -> dict[str, str]:
    sent = base64.b64encode(f"{device['id']}:{device['secret']}".encode()).decode()
    return {"Authorization": f"Basic {sent}"}


async def post_reading(leaving: Leaving, device: dict) -> httpx.Response:
    path = f"/api/v1/devices/{device['id']}/telemetry"
    return await leaving.client.post(path, json={"t": 1}, headers=basic(device))


def test_the_answer_spells_out_what_follows_and_when(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        before = leaving.now()
        answer = await leaving.delete(ada)
        assert answer.status_code == 202
        told = answer.json()
        assert (told["status"], told["can_be_undone"]) == ("closing", True)
        erased = told["erased_at"]
        assert before + IN_7_DAYS <= _time(erased) <= leaving.now() + IN_7_DAYS
        assert all(told[name] for name in ("at_once", "then", "until_then"))
        await leaving.work()
        to, subject, words = leaving.mails()[-1]
        assert (to, "will be erased on" in subject) == ("ada@example.org", True)
        for line in (*told["at_once"], *told["then"]):
            assert line in " ".join(words.split())

    leaving.run(work)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_everything_that_opens_a_door_ends_at_once(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        device = await leaving.device(ada, "boiler")
        made = await ada.ask("POST", "/api-keys", json={"name": "k", "scopes": ["devices:read"]})
        key = {"Authorization": f"Bearer {made.json()['key']}"}
        assert (await leaving.client.get("/api/v1/devices", headers=key)).status_code == 200
        assert (await post_reading(leaving, device)).status_code == 200
        leaving.rows(
            "INSERT INTO stream (id, account_id, until)"
            " SELECT gen_random_uuid(), id, now() + interval '1 minute' FROM account"
        )
        leaving.rows(
            "INSERT INTO sql_login (account_id, role) SELECT account.id,"
            " regexp_replace(pg_get_userbyid(proowner), '_logins$', '_grafana_ada')"
            " FROM account, pg_proc WHERE proname = 'drop_sql_login'"
        )
        (role,) = leaving.rows("SELECT role FROM sql_login")[0]
        leaving.rows(f'CREATE ROLE "{role}" LOGIN')
        (owner,) = leaving.rows(
            "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'drop_sql_login'"
        )[0]
        # whoever creates a role may drop it, since PostgreSQL 16 nobody else
        leaving.rows(f'GRANT "{role}" TO "{owner}" WITH ADMIN OPTION')
        assert (await leaving.delete(ada)).status_code == 202
        assert (await ada.ask("GET", "/account")).status_code == 401
        assert (await leaving.client.get("/api/v1/devices", headers=key)).status_code == 401
        refused = await post_reading(leaving, device)
        assert (refused.status_code, refused.json()["code"]) == (403, "account_closing")
        assert leaving.rows("SELECT * FROM stream") == []
        assert leaving.rows("SELECT * FROM pg_roles WHERE rolname = %s", role) == []
        verifiers = "SELECT device.id FROM device JOIN account ON account.id = account_id"
        assert leaving.rows(f"{verifiers} WHERE closing_at IS NULL") == []

    leaving.run(work)


def test_no_door_opens_that_was_asked_for_before_the_closing(leaving: Leaving) -> None:
    """A request that passed the guard may come to its writing after the deletion was asked for."""

    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        number, pool = leaving.account_of(ada.email), leaving.services.pool
        async with db.transaction(pool) as conn:
            account = await accounts.find(conn, str(number))
        async with db.transaction(pool) as conn:
            await keys.create(conn, number, "before", sorted(SCOPES), None, None)
            closing = asyncio.create_task(leaving.delete(ada))
            waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await asyncio.to_thread(until, lambda: leaving.rows(waits), "the deletion waits")
        assert (await closing).status_code == 202
        assert leaving.rows("SELECT * FROM api_key") == []
        plan = leaving.services.plans["own"]
        place = Place("localhost", 5432, "disable")
        with pytest.raises(Conflict):
            async with db.transaction(pool) as conn:
                await keys.create(conn, number, "after", sorted(SCOPES), None, None)
        with pytest.raises(Conflict):
            async with db.transaction(pool) as conn:
                await grafana.create(conn, account, plan, place, 30)

    leaving.run(work)


def test_a_flush_refuses_what_it_gets_although_it_knew_the_device(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        device = (await leaving.device(ada, "boiler"))["id"]
        knows: Directory = leaving.directory()
        assert (await leaving.send(device, {"t": 1}, {"t": 2}, directory=knows)).stored == 2
        await leaving.delete(ada)
        outcome = await leaving.send(device, {"t": 3}, [{"t": 4}], directory=knows)
        assert (outcome.stored, dict(outcome.rejected)) == (0, {"account_closing": 2})
        assert leaving.readings() == 2
        await ada.sign_in()
        assert (await ada.ask("POST", "/account/deletion/undo")).status_code == 200
        assert (await leaving.send(device, {"t": 5}, directory=knows)).stored == 1

    leaving.run(work)


def test_signed_in_again_a_person_sees_it_and_may_undo_it_and_nothing_else(
    leaving: Leaving,
) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        device = await leaving.device(ada, "boiler")
        assert (await ada.ask("GET", "/account")).json()["closing_at"] is None
        missing = await ada.ask("GET", "/account/deletion/receipt")
        assert (missing.status_code, missing.json()["status"]) == (200, "open")
        assert (await ada.ask("POST", "/account/deletion/undo")).status_code == 409
        await leaving.delete(ada)
        assert (await ada.sign_in()).status_code == 200
        shown = (await ada.ask("GET", "/account")).json()
        assert shown["closing_at"] < shown["erased_at"]
        receipt = (await ada.ask("GET", "/account/deletion/receipt")).json()
        assert (receipt["status"], receipt["total"]) == ("closing", 0)
        for method, path in (
            ("GET", "/devices"), ("POST", "/grafana"), ("GET", "/api-keys"), ("GET", "/plan"),
            ("PATCH", "/account"), ("GET", f"/devices/{device['id']}/telemetry"),
        ):  # fmt: skip
            answer = await ada.ask(method, path, json={} if method != "GET" else None)
            assert (answer.status_code, answer.json()["code"]) == (403, "account_closing"), path
        undone = await ada.ask("POST", "/account/deletion/undo")
        assert undone.status_code == 200
        assert undone.json()["comes_back"]
        assert undone.json()["stays_gone"]
        assert (await ada.ask("GET", "/devices")).status_code == 200
        assert (await post_reading(leaving, device)).status_code == 200
        leaving.later(days=30)
        await leaving.due()
        assert leaving.rows("SELECT count(*) FROM account") == [(1,)]
        assert "Your account stays" in [subject for _, subject, _ in leaving.mails()]

    leaving.run(work)


def test_the_mailed_link_undoes_it_once(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        await leaving.delete(ada)
        await leaving.work()
        token = leaving.link("deletion/undo")
        path = "/api/v1/account/deletion/undo"
        leaving.client.cookies.clear()
        assert (await leaving.client.post(path)).status_code == 401
        wrong = await leaving.client.post(path, json={"token": "x" * 43})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "token")
        assert (await leaving.client.post(path, json={"tokens": 1})).status_code == 401
        done = await leaving.client.post(path, json={"token": token})
        assert (done.status_code, done.json()["status"]) == (200, "open")
        assert (await leaving.client.post(f"{path}?token={token}")).status_code == 422
        assert (await ada.sign_in()).status_code == 200

    leaving.run(work)


def test_after_seven_days_nothing_undoes_it(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        receipt = (await leaving.delete(ada)).json()["receipt_token"]
        await leaving.work()
        token = leaving.link("deletion/undo")
        leaving.later(days=6, hours=23)
        await leaving.due()
        assert leaving.rows("SELECT count(*) FROM account") == [(1,)]
        leaving.later(hours=2)
        await leaving.due()
        assert leaving.rows("SELECT count(*) FROM account") == [(0,)]
        path = "/api/v1/account/deletion"
        assert (await leaving.client.post(f"{path}/undo?token={token}")).status_code == 422
        assert (await ada.sign_in()).status_code == 401
        for good in (receipt, leaving.link("deletion/receipt")):
            answer = await leaving.client.get(f"{path}/receipt?token={good}")
            assert (answer.status_code, answer.json()["status"]) == (200, "erased")
            assert answer.json()["erased"]["account"] == 1
            assert answer.json()["total"] == sum(answer.json()["erased"].values())
            assert "ada" not in answer.text
        assert (await leaving.client.get(f"{path}/receipt?token=x")).status_code == 404
        assert (await leaving.client.get(f"{path}/receipt")).status_code == 401
        tries = [await leaving.client.get(f"{path}/receipt?token=x") for _ in range(60)]
        assert [answer.status_code for answer in tries[-3:]] == [429] * 3
        assert tries[-1].json()["code"] == "too_many_requests"

    leaving.run(work)


def test_now_means_now_and_the_receipt_is_the_last_mail(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        answer = (await leaving.delete(ada, when="now")).json()
        assert (answer["status"], answer["can_be_undone"]) == ("erasing", False)
        await leaving.work()
        assert leaving.rows("SELECT count(*) FROM account") == [(0,)]
        ((to, subject, words),) = leaving.mails()  # those of before went with the account
        assert (to, subject) == ("ada@example.org", "Your account is erased: the receipt")
        assert "account: 1" in words
        assert leaving.rows("SELECT account_id, mail_to, step FROM erasure") == [
            (None, None, "done")
        ]
        # the address is free again
        assert (await leaving.person()).csrf

    leaving.run(work)


def test_asked_again_it_only_comes_sooner(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        first = (await leaving.delete(ada)).json()
        await ada.sign_in()
        leaving.later(days=1)
        await ada.ask("POST", "/auth/reauthenticate", json={"password": PASSWORD})
        await ada.sign_in()
        again = (await leaving.delete(ada)).json()
        assert again["erased_at"] == first["erased_at"]
        await ada.sign_in()
        assert (await leaving.delete(ada, when="now")).json()["status"] == "erasing"
        await leaving.work()
        assert leaving.rows("SELECT count(*) FROM account") == [(0,)]

    leaving.run(work)


def test_a_job_of_a_deletion_that_was_undone_begins_nothing_of_the_next(leaving: Leaving) -> None:
    """The job looked before the undoing, and goes on after the account was to be deleted again."""

    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        await leaving.delete(ada, when="now")
        (first,) = leaving.rows("SELECT id FROM erasure")[0]
        async with db.transaction(leaving.services.pool) as conn:
            looked = await steps.find(conn, str(first))
        assert looked is not None
        await ada.sign_in()
        assert (await ada.ask("POST", "/account/deletion/undo")).status_code == 200
        assert (await leaving.delete(ada)).json()["can_be_undone"] is True
        async with db.transaction(leaving.services.pool) as conn:
            assert await steps.begin(conn, looked, leaving.now()) is False
        assert leaving.rows("SELECT erasing FROM account") == [(False,)]
        await ada.sign_in()
        assert (await ada.ask("POST", "/account/deletion/undo")).status_code == 200

    leaving.run(work)


def test_it_asks_for_a_recent_proof(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        leaving.later(hours=1)
        refused = await leaving.delete(ada)
        assert (refused.status_code, refused.json()["code"]) == (403, "reauthentication_required")
        assert (await leaving.client.delete("/api/v1/account")).status_code == 403  # no CSRF token
        key = await _key(leaving, ada)
        headers = {"Authorization": f"Bearer {key}"}
        leaving.client.cookies.clear()
        answer = await leaving.client.delete("/api/v1/account", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "session_required")
        assert leaving.rows("SELECT closing_at FROM account") == [(None,)]

    leaving.run(work)


async def _key(leaving: Leaving, person: Person) -> str:
    account = leaving.account_of(person.email)
    async with db.transaction(leaving.services.pool) as conn:
        return (await keys.create(conn, account, "k", sorted(SCOPES), None, None)).key


def test_an_account_without_a_password_proves_itself_by_a_mailed_code(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        leaving.rows("UPDATE account SET password_hash = NULL")
        leaving.later(hours=1)
        assert (await leaving.delete(ada)).status_code == 403
        assert (await ada.ask("POST", "/auth/reauthenticate", json={})).status_code == 202
        code = await mailed(leaving.services.settings, ada.email, "code", now=leaving.now())
        proved = await ada.ask("POST", "/auth/reauthenticate", json={"code": code})
        ada.csrf = proved.json()["csrf_token"]
        assert (await leaving.delete(ada)).status_code == 202

    leaving.run(work)


@pytest.mark.parametrize(
    "state",
    [
        "UPDATE account SET disabled_at = now()",
        "INSERT INTO allowance SELECT id, current_date, 1000000000, 0, now(), '' FROM account",
        "INSERT INTO subscription (account_id, customer_key, status)"
        " SELECT id, 'k', 'past_due' FROM account",
    ],
    ids=["disabled", "over quota", "past due"],
)
def test_whatever_state_an_account_is_in_it_may_leave(leaving: Leaving, state: str) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        leaving.rows(state)
        assert (await leaving.delete(ada, when="now")).status_code == 202
        await leaving.work()
        assert leaving.rows("SELECT count(*) FROM account") == [(0,)]

    leaving.run(work)


@pytest.mark.parametrize("body", ["{", '{"when": "later"}', '{"now": true}', "[]"])
def test_rubbish_deletes_nothing(leaving: Leaving, body: str) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        json = {"content-type": "application/json"}
        answer = await ada.ask("DELETE", "/account", content=body, headers=json)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        plain = {"content-type": "text/plain"}
        assert (await ada.ask("DELETE", "/account", content="x", headers=plain)).status_code == 415
        assert leaving.rows("SELECT closing_at FROM account") == [(None,)]

    leaving.run(work)


def test_a_subscription_ends_with_the_closing_and_goes_on_with_the_undoing(
    leaving: Leaving,
) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        bought = (await leaving.buy(ada))["id"]
        await leaving.deliver_all()
        await leaving.delete(ada)
        await leaving.work()
        assert leaving.fake.subscriptions[bought]["cancel_at_period_end"] is True
        await ada.sign_in()
        await ada.ask("POST", "/account/deletion/undo")
        await leaving.work()
        assert leaving.fake.subscriptions[bought]["cancel_at_period_end"] is False
        # what its person had set to end before stays so
        leaving.fake.cancel_later(bought)
        for _ in range(2):
            await leaving.delete(ada)
            await leaving.work()
            await ada.sign_in()
            await ada.ask("POST", "/account/deletion/undo")
            await leaving.work()
        assert leaving.fake.subscriptions[bought]["cancel_at_period_end"] is True

    leaving.run(work)


def test_the_customer_at_stripe_goes_and_the_receipt_says_what_stays(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        bought = (await leaving.buy(ada))["id"]
        await leaving.deliver_all()
        customer = leaving.fake.subscriptions[bought]["customer"]
        receipt = (await leaving.delete(ada, when="now")).json()["receipt_token"]
        await leaving.work()
        assert leaving.fake.customers[customer]["deleted"] is True
        assert leaving.fake.subscriptions[bought]["status"] == "canceled"
        path = f"/api/v1/account/deletion/receipt?token={receipt}"
        assert "Stripe keeps invoices" in (await leaving.client.get(path)).json()["kept"]
        assert leaving.rows("SELECT * FROM procrastinate_jobs") == []
        assert leaving.rows("SELECT customer_id FROM subscription") == []
        # what Stripe tells of it afterwards is nobody's
        await leaving.deliver_all()
        assert leaving.rows("SELECT * FROM procrastinate_jobs") == []

    leaving.run(work)


def test_alerts_webhooks_and_mail_are_silent_while_it_closes(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        await leaving.device(ada, "boiler")
        account = leaving.account_of(ada.email)
        rule = {"name": "silent", "kind": "no_data", "for": 60}
        answer = await ada.ask("POST", "/alert-rules", json=rule)
        assert answer.status_code == 201, answer.text
        leaving.rows(
            "INSERT INTO channel (account_id, name, url, secret, created_at)"
            " VALUES (%s, 'hook', 'https://192.0.2.7/', 'whsec_x', now())", account,
        )  # fmt: skip
        await leaving.delete(ada)
        for _ in range(60):
            leaving.later(seconds=10)
            await alerts.look_after_absence(leaving.services)
        assert leaving.rows("SELECT * FROM alert") == []
        async with db.transaction(leaving.services.pool) as conn:
            await notices.notify(conn, account, "channel_test")
        before = len(leaving.mails())
        await leaving.work()
        assert [subject for _, subject, _ in leaving.mails()[before:]] == [leaving.mails()[-1][1]]
        assert "will be erased" in leaving.mails()[-1][1]
        assert leaving.rows("SELECT attempts FROM delivery") == [([],)]
        await ada.sign_in()
        await ada.ask("POST", "/account/deletion/undo")
        await alerts.look_after_absence(leaving.services)
        assert leaving.rows("SELECT * FROM alert") == []  # silence is counted from now on

    leaving.run(work)


def test_devices_are_told_to_leave_the_password_file(leaving: Leaving) -> None:
    """The broker listens for this, and reads who may stay."""

    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        device = (await leaving.device(ada, "boiler"))["id"]
        with psycopg.connect(leaving.url, autocommit=True) as conn:
            conn.execute("LISTEN paqett_credentials")
            await leaving.delete(ada)
            assert [n.channel for n in conn.notifies(timeout=5, stop_after=1)]
            assert conn.execute(query("unscoped_device_verifiers")).fetchall() == []
            await ada.sign_in()
            await ada.ask("POST", "/account/deletion/undo")
            assert [n.channel for n in conn.notifies(timeout=5, stop_after=1)]
            found = conn.execute(query("unscoped_device_verifiers")).fetchall()
        assert [row[0] for row in found] == [device]

    leaving.run(work)


def test_the_links_in_the_mails_lead_to_pages_with_a_button_and_a_table(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        await leaving.delete(ada)
        await leaving.work()
        token = leaving.link("deletion/undo")
        leaving.client.cookies.clear()
        page = await leaving.client.get("/deletion/undo", params={"token": token})
        assert (page.status_code, token in page.text) == (200, True)
        assert leaving.rows("SELECT closing_at IS NULL FROM account") == [(False,)]
        done = await leaving.client.post("/deletion/undo", data={"token": token})
        assert "The account is open again" in done.text
        again = await leaving.client.post("/deletion/undo", data={"token": token})
        assert (again.status_code, "works once" in again.text) == (422, True)
        await ada.sign_in()
        await leaving.delete(ada, when="now")
        await leaving.work()
        shown = await leaving.client.get(
            "/deletion/receipt", params={"token": leaving.link("deletion/receipt")}
        )
        assert (shown.status_code, "An account was erased" in shown.text) == (200, True)
        wrong = await leaving.client.get("/deletion/receipt", params={"token": "x"})
        assert wrong.status_code == 404

    leaving.run(work)


def test_settings_of_a_closing_account_offer_to_undo_it(leaving: Leaving) -> None:
    async def work(leaving: Leaving) -> None:
        ada = await leaving.person()
        await leaving.delete(ada)
        await ada.sign_in()
        page = await leaving.client.get("/settings")
        assert (page.status_code, "being deleted" in page.text) == (200, True)
        form = {"csrf_token": ada.csrf}
        done = await leaving.client.post("/settings/undo-deletion", data=form)
        assert done.status_code == 303, done.text
        assert leaving.rows("SELECT closing_at IS NULL FROM account") == [(True,)]

    leaving.run(work)
