"""From the job to a real SMTP server: at least once, over TLS, and nothing personal on the way."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from paqett import jobs, letters, mail_transport, mails, notices, tokens
from paqett.doctor import examine
from paqett.errors import ConfigurationError, NotFound
from paqett.jobs import MOST_ATTEMPTS
from paqett.worker import process, queue
from post import Post, certificate, plain
from support import with_url

SECRET_ADDRESS = "ann.private@example.org"


def ask(postman, person, template: str = "reset_password") -> None:
    """Somebody asks for a mail; nothing is sent yet."""
    ann = person(SECRET_ADDRESS)
    postman.write(lambda conn: mails.defer(conn, template, ann.id))


def waiting(postman) -> list[tuple[str, int, bool]]:
    return postman.rows(
        "SELECT status::text, attempts, scheduled_at > now() FROM procrastinate_jobs ORDER BY id"
    )


def test_a_mail_arrives_and_its_job_is_gone(postman, person, office) -> None:
    post = Post()
    postman.through(office(post))
    ask(postman, person)
    postman.work()
    assert post.recipients == [[SECRET_ADDRESS]]
    (mail,) = post.mails
    assert (mail["Subject"], mail["To"]) == ("Reset your password", SECRET_ADDRESS)
    assert mail["From"] == "Paqett <no-reply@localhost>"
    assert waiting(postman) == []
    assert not postman.folder.exists()


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_server_whose_certificate_fits_is_given_password_and_mail(
    postman, person, office, tmp_path, monkeypatch, tls
) -> None:
    post = Post()
    context, trusted = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    given = {"starttls": context} if tls == "starttls" else {"tls": context}
    login = {"PAQETT_MAIL__SMTP_USERNAME": "paqett", "PAQETT_MAIL__SMTP_PASSWORD": "right"}
    postman.through(office(post, **given), tls, **login)
    ask(postman, person)
    postman.work()
    assert post.signed_in == [b"paqett"]
    assert post.recipients == [[SECRET_ADDRESS]]
    assert tls == "tls" or post.over_tls == [True]


@pytest.mark.parametrize("tls", ["starttls", "tls"])
@pytest.mark.parametrize("wrong", ["another name", "unknown authority"])
def test_a_server_whose_certificate_does_not_fit_is_given_nothing(
    postman, person, office, tmp_path, monkeypatch, tls, wrong
) -> None:
    post = Post()
    name = "mail.example.org" if wrong == "another name" else "127.0.0.1"
    context, trusted = certificate(tmp_path, name)
    if wrong == "another name":
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    given = {"starttls": context} if tls == "starttls" else {"tls": context}
    login = {"PAQETT_MAIL__SMTP_USERNAME": "paqett", "PAQETT_MAIL__SMTP_PASSWORD": "right"}
    postman.through(office(post, **given), tls, **login)
    ask(postman, person)
    postman.work()
    assert (post.signed_in, post.raw) == ([], [])
    assert waiting(postman) == [("todo", 1, True)]


def test_a_server_that_offers_no_starttls_is_given_nothing(postman, person, office) -> None:
    post = Post()
    postman.through(office(post), "starttls")
    ask(postman, person)
    postman.work()
    assert post.raw == []
    assert waiting(postman) == [("todo", 1, True)]


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"SMTP_HOST": "mail.example.org", "SMTP_TLS": "none"}, "starttls or tls"),
        ({"SMTP_HOST": "127.0.0.1.example.org", "SMTP_TLS": "none"}, "starttls or tls"),
        ({"SMTP_USERNAME": "paqett"}, "belong together"),
        ({"FROM_ADDRESS": "Paqett"}, "no address"),
    ],
)
def test_settings_that_cannot_be_right_stop_the_worker(database_url, environ, says) -> None:
    settings = with_url(database_url, **{f"PAQETT_MAIL__{k}": v for k, v in environ.items()})
    with pytest.raises(ConfigurationError, match=says):
        asyncio.run(process.run(settings, asyncio.Event()))


@pytest.mark.parametrize(
    "answer",
    [{"refuse_recipient": "451 {} is greylisted"}, {"refuse_data": "452 no room"}],
    ids=["recipient", "data"],
)
def test_a_server_that_is_not_ready_is_asked_again(postman, person, office, answer) -> None:
    post = Post()
    postman.through(office(post))
    for name, value in answer.items():
        setattr(post, name, value)
    ask(postman, person)
    postman.work()
    assert waiting(postman) == [("todo", 1, True)]
    post.refuse_recipient = post.refuse_data = None
    postman.work()
    assert post.raw == []  # not before its time
    postman.due()
    postman.work()
    assert len(post.raw) == 1
    assert waiting(postman) == []
    postman.do(queue.count)
    assert postman.rows("SELECT * FROM job_error") == []


def test_a_server_that_is_away_or_silent_is_asked_again(postman, person) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        postman.environ |= {
            "PAQETT_MAIL__SMTP_HOST": "127.0.0.1",
            "PAQETT_MAIL__SMTP_PORT": str(silent.getsockname()[1]),
            "PAQETT_MAIL__SMTP_TLS": "none",
            "PAQETT_MAIL__TIMEOUT_S": "0.2",
        }
        ask(postman, person)
        postman.work()
        assert waiting(postman) == [("todo", 1, True)]
    postman.due()
    postman.work()
    assert waiting(postman) == [("todo", 2, True)]


def paqett(postman, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PAQETT_DATABASE__URL": postman.url}
    argv = [sys.executable, "-m", "paqett", *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


def test_a_mail_that_is_refused_for_good_fails_where_it_is_seen(postman, person, office) -> None:
    post = Post()
    postman.through(office(post))
    post.refuse_recipient = "550 5.1.1 <{}> unknown"
    ask(postman, person)
    postman.work()
    (failed,) = postman.write(jobs.list_unfinished)
    assert (failed.task, failed.status) == ("send_mail", "failed")
    assert failed.error == "MailRefused: reset_password: the server answered 550"
    assert postman.write(jobs.counts) == {"todo": 0, "doing": 0, "failed": 1}
    found = postman.write(lambda conn: examine(conn, postman.now))
    (finding,) = [line for line in found if line.subject == "jobs"]
    assert (finding.state, "1 failed" in finding.detail) == ("warning", True)
    postman.do(queue.count)
    assert queue._jobs.labels("failed")._value.get() == 1

    (listed,) = json.loads(paqett(postman, "admin", "jobs", "--json").stdout)
    assert (listed["id"], listed["error"]) == (failed.id, failed.error)
    assert SECRET_ADDRESS not in str(listed)
    post.refuse_recipient = None
    postman.due()
    postman.work()
    assert post.raw == []  # not by itself
    assert paqett(postman, "admin", "retry-job", str(failed.id)).returncode == 0
    postman.work()
    assert len(post.raw) == 1
    assert paqett(postman, "admin", "retry-job", str(failed.id)).returncode == 1
    with pytest.raises(NotFound):
        postman.write(lambda conn: jobs.retry(conn, failed.id))


def test_tries_grow_apart_and_end(postman, person) -> None:
    backoff = jobs.Backoff()
    waits = []
    for attempts in range(MOST_ATTEMPTS):
        job = jobs.Job(
            id=1, queue="q", lock=None, queueing_lock=None, task_name="t", attempts=attempts
        )
        drawn = [backoff.get_retry_decision(exception=OSError(), job=job) for _ in range(20)]
        times = [decision.retry_at.timestamp() - time.time() for decision in drawn if decision]
        longest = min(7200, 2 ** (attempts + 1))
        assert longest / 2 - 1 <= min(times) < max(times) <= longest + 1
        waits.append(longest)
    assert 12 * 3600 < sum(waits) < 36 * 3600
    last = job.evolve(attempts=MOST_ATTEMPTS)
    assert backoff.get_retry_decision(exception=OSError(), job=last) is None
    refused = mail_transport.MailRefused("550")
    assert backoff.get_retry_decision(exception=refused, job=job.evolve(attempts=0)) is None


def start_worker(postman, log: Path) -> subprocess.Popen[bytes]:
    environ = {
        **os.environ, **postman.environ, "PAQETT_DATABASE__URL": postman.url,
        "PAQETT_LOG__LEVEL": "debug",
    }  # fmt: skip
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "paqett", "worker"], env=environ, stdout=out, stderr=out
        )


def until(ready, what: str) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("moment", ["before it was taken", "after it was taken"])
def test_a_worker_killed_in_the_middle_sends_at_least_once(
    postman, person, office, tmp_path, moment
) -> None:
    post, log = Post(), tmp_path / "worker.log"
    postman.through(office(post))
    ask(postman, person)
    worker = start_worker(postman, log)

    def kill() -> None:
        worker.kill()
        worker.wait()

    post.on_data = kill
    post.refuse_data = "451 gone" if moment.startswith("before") else None
    try:
        until(lambda: worker.poll() is not None, "the worker is killed")
    finally:
        with suppress(ProcessLookupError):
            worker.kill()
        worker.wait()
    until(lambda: len(post.raw) == (moment == "after it was taken"), "the server is done")
    assert [status for status, *_ in waiting(postman)] == ["doing"]
    post.on_data, post.refuse_data = (lambda: None), None
    assert postman.with_queue(queue.take_up) == 0  # it may still be alive
    postman.rows("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '31 s'")
    assert postman.with_queue(queue.take_up) == 1
    postman.due()
    postman.work()
    assert len(post.raw) == 1 + (moment == "after it was taken")
    assert waiting(postman) == []
    # two mails with two tokens must both be shown to whoever drops doubles; the last one is good
    assert len({mail["Message-ID"] for mail in post.mails}) == len(post.raw)
    token = plain(post.mails[-1]).partition("token=")[2].split()[0]
    good = postman.write(lambda conn: tokens.redeem(conn, token, ["reset_password"], postman.now))
    assert good.email == SECRET_ADDRESS


def test_a_token_is_good_before_its_mail_is_out(postman, person, office) -> None:
    post = Post()
    postman.through(office(post))
    seen: list[int] = []
    post.on_data = lambda: seen.extend(postman.rows("SELECT count(*) FROM account_token")[0])
    ask(postman, person)
    postman.work()
    assert seen == [1]


def test_a_notice_that_was_mailed_is_not_mailed_again_and_keeps_its_id(
    postman, person, office
) -> None:
    post = Post()
    postman.through(office(post))
    ann = person()
    postman.write(lambda conn: notices.notify(conn, ann.id, "password_changed"))
    ((notice,),) = postman.rows("SELECT id FROM notice")
    post.refuse_data = "451 later"
    postman.work()
    post.refuse_data = None
    postman.due()
    postman.work()
    postman.write(lambda conn: mails.defer(conn, "notice", ann.id, notice=notice))
    postman.work()
    assert [mail["Message-ID"] for mail in post.mails] == [f"<notice.{notice}@localhost>"]


def test_a_job_no_worker_outlives_fails_in_the_end(postman, person) -> None:
    ask(postman, person)
    postman.rows("UPDATE procrastinate_jobs SET status = 'doing', attempts = %s", MOST_ATTEMPTS)
    assert postman.with_queue(queue.take_up) == 1
    (failed,) = postman.write(jobs.list_unfinished)
    assert (failed.status, failed.error) == (
        "failed", "Abandoned: its worker was killed at every attempt",
    )  # fmt: skip


def test_no_token_and_no_address_stands_in_a_job_or_a_log(
    postman, person, office, tmp_path
) -> None:
    post, log = Post(), tmp_path / "worker.log"
    postman.through(office(post))
    ann = person(SECRET_ADDRESS, first_name="Annabella", pending_email="pending@example.org")
    verbose = "{} says: <{}> of Annabella"
    seen: list[str] = []
    worker = start_worker(postman, log)
    try:
        for answer in (None, verbose.replace("{}", "550", 1), verbose.replace("{}", "450", 1)):
            post.refuse_recipient = answer
            for template in ("reset_password", "change_email", "reauthenticate_code"):
                postman.write(lambda conn, name=template: mails.defer(conn, name, ann.id))
            postman.write(
                lambda conn: notices.notify(conn, ann.id, "email_changed", to_old="old@example.org")
            )
            seen.extend(str(row) for row in postman.rows("SELECT * FROM procrastinate_jobs"))
            until(
                lambda: (
                    not postman.rows(
                        "SELECT id FROM procrastinate_jobs WHERE status = 'doing'"
                        " OR status = 'todo' AND attempts = 0"
                    )
                ),
                "every job was tried",
            )
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(20)
    seen.extend(str(row) for row in postman.rows("SELECT * FROM procrastinate_jobs"))
    seen.extend(str(row) for row in postman.rows("SELECT * FROM job_error"))
    told = log.read_text()
    assert told.count("MailRefused") >= 3, told
    assert told.count("sent") >= 4
    secrets = ["ann.private", "pending@", "old@example", "Annabella", "example.org"]
    for mail in post.mails:
        secrets += [word.rpartition("=")[2] for word in plain(mail).split() if "token=" in word]
        secrets += [word for word in plain(mail).split() if word.isdigit() and len(word) == 8]
    assert len(secrets) >= 5 + 3
    for secret in secrets:
        assert secret not in told.replace("telemetry.example.org", "")
        assert not any(secret in row for row in seen)


def test_what_an_unforeseen_error_says_is_not_logged(postman, person, monkeypatch, caplog) -> None:
    async def broken(*_: object) -> None:
        raise ValueError(f"Key (email)=({SECRET_ADDRESS}) already exists")

    monkeypatch.setattr(letters, "write", broken)
    ask(postman, person)
    postman.rows("UPDATE procrastinate_jobs SET attempts = %s", MOST_ATTEMPTS)
    postman.work()
    assert "Unexpected: ValueError" in caplog.text
    assert "in broken" in caplog.text  # where it happened
    assert SECRET_ADDRESS not in caplog.text
    assert postman.rows("SELECT error FROM job_error") == [("ValueError",)]


@pytest.mark.parametrize("address", ["äpfel@example.org", "ann@müller.example"])
def test_an_address_beyond_ascii_arrives(postman, person, office, address) -> None:
    post = Post()
    postman.through(office(post))
    ann = person(address)
    postman.write(lambda conn: mails.defer(conn, "reset_password", ann.id))
    postman.work()
    assert post.recipients == [[address.replace("müller", "xn--mller-kva")]]


def test_terms_are_the_settings_own(postman) -> None:
    terms = letters.terms(postman.settings)
    assert terms.public_url == "https://telemetry.example.org"
    assert (terms.verify_email_s, terms.reset_password_s, terms.reauthenticate_s) == (
        86_400, 3_600, 600,
    )  # fmt: skip
