"""What is forgotten when its time is over, who is told of failed jobs, and what each role may."""

from datetime import timedelta

import psycopg
import pytest

from paqett import jobs, mails, migrate, notices
from paqett.worker import mail as worker_mail
from paqett.worker import process, queue, upkeep
from post import Post, Postman, plain
from support import in_database, make_tenant

OPERATOR = {"PAQETT_PAQETT__OPERATOR_EMAIL": "operator@example.org"}


@pytest.mark.parametrize(("kind", "days"), [("security", 30), ("usage", 90), ("export", 90)])
def test_notices_are_kept_for_their_time(postman, person, kind, days) -> None:
    ann = person()
    for age in (days - 0.01, days + 0.01):
        postman.rows(
            "INSERT INTO notice (account_id, kind, event, created_at) VALUES (%s, %s, %s, %s)",
            ann.id, kind, f"age {age}", postman.now - timedelta(days=age),
        )  # fmt: skip
    postman.do(upkeep.forget_notices)
    assert postman.rows("SELECT event FROM notice") == [(f"age {days - 0.01}",)]


def test_sessions_are_forgotten_30_days_after_their_end(postman, person) -> None:
    ann = person()

    def session(name: str, ended: float | None, expires: float) -> None:
        created = postman.now - timedelta(days=100)
        at = None if ended is None else postman.now + timedelta(days=ended)
        postman.rows(
            "INSERT INTO session (account_id, hash, method, created_at, seen_at, authenticated_at,"
            " expires_at, ended_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            ann.id, None if at else name.encode(), name, created, created, created,
            postman.now + timedelta(days=expires), at,
        )  # fmt: skip

    session("alive", None, 1)
    session("ended lately", -29.9, 10)
    session("ended long ago", -30.1, 10)
    session("ran out lately", None, -29.9)
    session("ran out long ago", None, -30.1)
    postman.do(upkeep.forget_sessions)
    left = {name for (name,) in postman.rows("SELECT method FROM session")}
    assert left == {"alive", "ended lately", "ran out lately"}


def test_registrations_nobody_confirmed_are_erased_after_7_days(postman, person) -> None:
    def at(days: float, **more: object) -> dict[str, object]:
        return {"email_verified_at": None, "created_at": postman.now - timedelta(days=days), **more}

    person("young@example.org", **at(6.99))
    old = person("old@example.org", **at(7.01))
    person("verified@example.org", **at(400, email_verified_at=postman.now))
    owner = make_tenant(postman.url, "with-devices")
    postman.rows(
        "UPDATE account SET email_verified_at = NULL, created_at = %s WHERE id = %s",
        postman.now - timedelta(days=8), owner.account_id,
    )  # fmt: skip
    postman.write(lambda conn: mails.defer(conn, "verify_email", old.id))
    postman.work()
    assert postman.rows("SELECT count(*) FROM account_token") == [(1,)]
    postman.do(upkeep.erase_unconfirmed)
    left = {email for (email,) in postman.rows("SELECT email FROM account")}
    assert left == {"young@example.org", "verified@example.org", "with-devices@example.org"}
    assert postman.rows("SELECT count(*) FROM account_token") == [(0,)]


def test_looking_for_old_registrations_does_not_stop_ingest(postman, person) -> None:
    person("young@example.org", email_verified_at=None)
    database = postman.url.rpartition("/")[2]
    postman.rows(f"ALTER DATABASE {database} SET lock_timeout = '2s'")
    with psycopg.connect(postman.url) as flush:
        flush.execute("SELECT pg_advisory_xact_lock_shared(7061, 1)")
        postman.do(upkeep.erase_unconfirmed)  # does not wait for it


def fail(postman: Postman, account: int, times: int = 1) -> None:
    for _ in range(times):
        postman.write(lambda conn: mails.defer(conn, "reset_password", account))
    postman.work()


def test_failed_jobs_are_mailed_to_the_operator_once_an_hour(postman, person, office) -> None:
    post = Post()
    postman.through(office(post), **OPERATOR)
    ann = person("ann.private@example.org")
    postman.do(worker_mail.report_failures)
    assert post.raw == []
    post.refuse_recipient = "550 no"
    fail(postman, ann.id, 3)
    post.refuse_recipient = None
    postman.do(worker_mail.report_failures)
    (mail,) = post.mails
    assert (mail["To"], mail["Subject"]) == ("operator@example.org", "3 failed jobs")
    assert "send_mail: 3 times MailRefused: reset_password: the server answered 550" in plain(mail)
    assert "ann.private" not in plain(mail)

    post.refuse_recipient = "550 no"
    fail(postman, ann.id)
    post.refuse_recipient = None
    for minutes in (1, 58):
        postman.later(minutes=minutes)
        postman.do(worker_mail.report_failures)
    assert len(post.raw) == 1
    postman.later(minutes=2)
    postman.do(worker_mail.report_failures)
    assert post.mails[1]["Subject"] == "1 failed job"
    postman.later(hours=2)
    postman.do(worker_mail.report_failures)
    assert len(post.raw) == 2  # what was told is not told again


def test_a_report_that_cannot_be_sent_is_sent_later(postman, person, office) -> None:
    post = Post()
    postman.through(office(post), **OPERATOR)
    post.refuse_recipient = "550 no"
    fail(postman, person().id)
    for _ in range(2):
        with pytest.raises(Exception, match="operator_report: the server answered 550"):
            postman.do(worker_mail.report_failures)
    post.refuse_recipient = None
    postman.do(worker_mail.report_failures)
    assert [mail["To"] for mail in post.mails] == ["operator@example.org"]


def test_two_workers_send_one_report(postman, person, office) -> None:
    post = Post()
    postman.through(office(post), **OPERATOR)
    post.refuse_recipient = "550 no"
    fail(postman, person().id)
    post.refuse_recipient = None
    with psycopg.connect(postman.url) as other:
        other.execute("SELECT * FROM operator_report FOR UPDATE")
        postman.do(worker_mail.report_failures)
    assert post.raw == []
    postman.do(worker_mail.report_failures)
    assert len(post.raw) == 1


def test_without_an_operator_nothing_is_mailed(postman, person, office) -> None:
    post = Post()
    postman.through(office(post))
    post.refuse_recipient = "550 no"
    fail(postman, person().id)
    post.refuse_recipient = None
    postman.do(worker_mail.report_failures)
    assert post.raw == []


def test_why_a_job_failed_is_forgotten_with_the_job(postman, person, office) -> None:
    post = Post()
    postman.through(office(post))
    post.refuse_recipient = "550 no"
    fail(postman, person().id)
    assert postman.rows("SELECT count(*) FROM job_error") == [(1,)]
    postman.do(queue.count)
    assert postman.rows("SELECT count(*) FROM job_error") == [(1,)]
    postman.rows("DELETE FROM procrastinate_jobs")
    postman.do(queue.count)
    assert postman.rows("SELECT count(*) FROM job_error") == [(0,)]


def test_words_of_others_are_not_kept_as_the_reason(postman) -> None:
    async def note(conn) -> None:
        await jobs.note_error(conn, 1, ValueError("ann@example.org"), postman.now)

    postman.write(note)
    assert postman.rows("SELECT error FROM job_error") == [("ValueError",)]


@pytest.fixture
def as_role(bare_database_url: str, tmp_path):
    """A postman who signs in as one of the processes' roles."""
    in_database(bare_database_url, migrate.migrate)
    database = bare_database_url.rpartition("/")[2]
    host = bare_database_url.rpartition("@")[2]
    with psycopg.connect(bare_database_url, autocommit=True) as conn:
        for role in ("api", "worker"):
            conn.execute(f"ALTER ROLE \"{database}_{role}\" LOGIN PASSWORD 'x'")

    return lambda role: Postman(f"postgresql://{database}_{role}:x@{host}", tmp_path)


def test_each_process_may_do_its_part_and_no_more(as_role) -> None:
    api, worker = as_role("api"), as_role("worker")
    (ann,) = api.rows(
        "INSERT INTO account (email, plan, tier, email_verified_at)"
        " VALUES ('ann@example.org', 'own', 'own', now()) RETURNING id"
    )[0]

    async def events(conn) -> None:
        await notices.notify(conn, ann, "password_changed")
        await notices.set_preferences(
            conn, ann, notices.PreferencesIn(usage=notices.ChannelsIn(mail=False))
        )
        await mails.defer(conn, "reset_password", ann)

    api.write(events)
    worker.work()
    assert len(worker.written()) == 2
    worker.environ |= OPERATOR
    rounds = worker.with_queue(everything)
    assert rounds >= 10
    for role, forbidden in (
        (api, "DELETE FROM notice"),
        (api, "UPDATE notice SET data = '{}'"),
        (api, "SELECT * FROM operator_report"),
        (worker, "UPDATE notification_preference SET mail = true"),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            role.rows(forbidden)


async def everything(app, services) -> int:
    """Every round of upkeep once; how many there are."""
    rounds = process._rounds(app, services.settings)
    for _, task in rounds:
        await task(services)
    return len(rounds)
