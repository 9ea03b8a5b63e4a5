"""Without a server mail is written to a folder, and `paqett up` tells of it."""

import asyncio
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from paqett import mail_transport, mails, notices
from paqett.doctor import examine_machine
from paqett.local import mail_watch, welcome
from paqett.local.state import State
from paqett.mail_transport import Mail
from paqett.settings import load
from paqett.worker import mail as worker_mail
from post import plain, read
from support import with_url

NOW = datetime(2026, 11, 25, 13, 5, 17, 42, tzinfo=UTC)


def deliver(folder: Path, subject: str = "Subject") -> None:
    mail = Mail("ann@example.org", "notice", subject, "text\n", "<p>html</p>", "id")
    asyncio.run(mail_transport.deliver(mail, load({}).mail, folder, NOW))


def test_a_mail_is_a_file_for_its_owner_alone(tmp_path) -> None:
    old_mask = os.umask(0)
    try:
        deliver(tmp_path / "data" / "mail")
    finally:
        os.umask(old_mask)
    (path,) = (tmp_path / "data" / "mail").iterdir()
    assert path.name == "20261125T130517.000042Z-notice-1.eml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    mail = read(path.read_bytes())
    assert (mail["To"], mail["Subject"], plain(mail)) == ("ann@example.org", "Subject", "text\n")
    assert mail["Date"].datetime == NOW.replace(microsecond=0)
    assert b"\r\n" in path.read_bytes()


def test_mails_of_one_moment_do_not_overwrite_each_other(tmp_path) -> None:
    threads = [threading.Thread(target=deliver, args=(tmp_path, f"Subject {n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"20261125T130517.000042Z-notice-{n}.eml" for n in range(1, 9)]
    subjects = {str(read(path.read_bytes())["Subject"]) for path in tmp_path.iterdir()}
    assert subjects == {f"Subject {n}" for n in range(8)}


def test_a_mail_that_cannot_be_written_leaves_nothing_and_is_tried_again(
    postman, person, monkeypatch
) -> None:
    ann = person()
    postman.write(lambda conn: mails.defer(conn, "reset_password", ann.id))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    postman.work()
    assert list(postman.folder.iterdir()) == []
    assert postman.rows("SELECT status::text FROM procrastinate_jobs") == [("todo",)]
    monkeypatch.undo()
    postman.due()
    postman.work()
    assert len(postman.written()) == 1


def test_written_mails_go_after_7_days(postman, person) -> None:
    ann = person()
    for _ in range(2):
        postman.write(lambda conn: mails.defer(conn, "reset_password", ann.id))
        postman.work()
    first, second = sorted(postman.folder.iterdir())
    draft = postman.folder / ".draft-of-a-killed-worker"
    draft.touch()
    for path, days in ((first, 7.01), (second, 6.99), (draft, 8)):
        at = postman.now.timestamp() - days * 86_400
        os.utime(path, (at, at))
    postman.do(worker_mail.forget_mails)
    assert list(postman.folder.iterdir()) == [second]


def test_no_folder_is_no_error(postman) -> None:
    postman.do(worker_mail.forget_mails)
    assert not postman.folder.exists()


def test_up_tells_whom_about_what_and_the_link(postman, person) -> None:
    ann = person(first_name="Ann")
    postman.write(lambda conn: mails.defer(conn, "already_registered", ann.id))
    postman.work()
    told: list[str] = []

    async def watch() -> None:
        stop = asyncio.Event()
        watching = asyncio.create_task(mail_watch.watch(postman.folder, stop, told.append))
        await asyncio.sleep(0.1)  # what is there before is not new
        await asyncio.to_thread(ask)
        for _ in range(100):
            if len(told) == 2:
                break
            await asyncio.sleep(0.05)
        stop.set()
        await watching

    def ask() -> None:
        postman.write(lambda conn: mails.defer(conn, "reset_password", ann.id))
        postman.write(lambda conn: notices.notify(conn, ann.id, "password_changed"))
        postman.work()

    asyncio.run(watch())
    link = plain(postman.written()[2]).partition("here:\n\nChoose a new password:\n")[2].split()
    notice = next(path for path in postman.folder.glob("*-notice-1.eml"))
    reset = f"mail to ann@example.org: Reset your password: {link[0] if link else 'no link'}"
    assert sorted(told) == sorted(
        [reset, f"mail to ann@example.org: Your password was changed: {notice}"]
    )
    assert "token=" in reset


@pytest.mark.parametrize("mail", ["", "/srv/paqett/mail"])
def test_a_newcomer_is_told_where_mail_is(capsys, mail) -> None:
    welcome.show(State(), Path("/srv/paqett"), first=True, lan=False, mail=mail)
    said = capsys.readouterr().out
    assert ("written to /srv/paqett/mail, and shown here" in said) == bool(mail)
    assert said.rstrip().endswith("Ctrl-C stops everything; the data stays.")


@pytest.mark.parametrize(
    ("environ", "state", "says"),
    [
        ({}, "ok", "nobody gets any"),
        ({"PAQETT_PAQETT__PUBLIC_URL": "https://x.example"}, "warning", "nobody gets any"),
        ({"PAQETT_MAIL__SMTP_HOST": "mail.example.org"}, "ok", "mail.example.org:587, starttls"),
        (
            {"PAQETT_MAIL__SMTP_HOST": "mail.example.org", "PAQETT_MAIL__SMTP_TLS": "none"},
            "failed", "on this machine alone",
        ),
    ],
)  # fmt: skip
def test_the_doctor_tells_where_mail_goes(tmp_path, environ, state, says) -> None:
    settings = with_url("", PAQETT_PAQETT__DATA_DIR=str(tmp_path), **environ)
    (finding,) = [line for line in examine_machine(settings) if line.subject == "mail"]
    assert (finding.state, says in finding.detail) == (state, True)
