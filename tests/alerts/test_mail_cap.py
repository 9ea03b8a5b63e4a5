"""So many notices are mailed a day; what is held back is summed up once, in words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from paqett import notices
from paqett.worker import alerts
from post import Office, Post, Postman


@pytest.fixture
def postman(database_url: str, tmp_path) -> Postman:
    made = Postman(database_url, tmp_path)
    # a day that does not end within the test
    made.now = datetime.now(UTC).replace(hour=12, minute=0)
    return made


@pytest.fixture
def post(postman: Postman):  # type: ignore[no-untyped-def]
    post = Post()
    office = Office(post, None, None)
    office.start()
    postman.through(office, PAQETT_MAIL__MOST_A_DAY="2")
    yield post
    office.stop()


@pytest.fixture
def ann(postman: Postman) -> int:
    rows = postman.rows(
        "INSERT INTO account (email, plan, tier, email_verified_at, time_zone)"
        " VALUES ('ann@example.org', 'own', 'own', now(), 'Europe/Berlin') RETURNING id"
    )
    return int(rows[0][0])


def fire(postman: Postman, account_id: int, device: str, **more: Any) -> None:
    data = {"rule": "Warm", "device_name": device, "what": "t is 31, above 30", **more}
    postman.write(lambda conn: notices.notify(conn, account_id, "alert_firing", **data))


def subjects(post: Post) -> list[str]:
    return [str(mail["Subject"]) for mail in post.mails]


def test_the_last_mail_of_a_day_says_so_and_the_day_after_one_sums_up(postman, post, ann) -> None:
    for device in ("d0", "d1"):  # one at a time: jobs of one moment run in any order
        fire(postman, ann, device)
        postman.work()
    for device in ("d2", "d3", "d0"):
        fire(postman, ann, device)
    postman.work()
    assert subjects(post) == ["Alert: Warm on d0", "Alert: Warm on d1"]
    bodies = [mail.get_body(("plain",)).get_content() for mail in post.mails]
    assert ["This is the last of the 2 notices" in " ".join(body.split()) for body in bodies] == [
        False, True,
    ]  # fmt: skip
    postman.do(alerts.sum_up_mails)
    postman.work()
    assert len(post.mails) == 2  # the day is not over
    postman.later(hours=24)
    for _ in range(2):
        postman.do(alerts.sum_up_mails)
        postman.work()
    assert subjects(post)[2:] == ["Notices that were not mailed"]
    body = " ".join(post.mails[2].get_body(("plain",)).get_content().split())
    assert "3 of them were held back" in body
    assert "Alert: Warm on d2 (1); Alert: Warm on d3 (1)" in body
    rows = postman.rows("SELECT count(*) FROM notice WHERE event = 'alert_firing'")
    assert rows == [(5,)]  # the list has them all


def test_the_next_day_is_another(postman, post, ann) -> None:
    for _ in range(3):
        fire(postman, ann, "d")
    postman.work()
    postman.later(hours=24)
    fire(postman, ann, "e")
    postman.work()
    assert subjects(post)[2] == "Alert: Warm on e"


def test_security_is_neither_counted_nor_held_back(postman, post, ann) -> None:
    for _ in range(3):
        fire(postman, ann, "d")
    postman.work()
    postman.write(lambda conn: notices.notify(conn, ann, "password_changed"))
    postman.work()
    assert subjects(post)[2] == "Your password was changed"


def test_a_mail_that_is_tried_again_is_counted_once(postman, post, ann) -> None:
    post.refuse_data = "451 later"
    fire(postman, ann, "d")
    postman.work()
    post.refuse_data = None
    postman.rows("UPDATE procrastinate_jobs SET scheduled_at = NULL")
    postman.work()
    assert postman.rows("SELECT mails FROM mail_day") == [(1,)]
    postman.later(hours=24)
    assert len(post.mails) == 1


def test_the_time_is_told_in_the_accounts_zone_and_one_click_ends_the_mails(
    postman, post, ann
) -> None:
    fire(postman, ann, "d", since_time=datetime(2026, 7, 1, 10, tzinfo=UTC).isoformat())
    postman.work()
    mail = post.mails[0]
    assert "1 July 2026, 12:00 CEST" in mail.get_body(("plain",)).get_content()
    assert "1 July 2026, 12:00 CEST" in mail.get_body(("html",)).get_content()
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    token = str(mail["List-Unsubscribe"]).partition("token=")[2].rstrip(">")
    assert postman.write(lambda conn: notices.unsubscribe(conn, token)) == "device"
    fire(postman, ann, "d")
    postman.work()
    assert len(post.mails) == 1


def test_an_unverified_address_gets_none(postman, post, ann) -> None:
    postman.rows("UPDATE account SET email_verified_at = NULL")
    fire(postman, ann, "d")
    postman.work()
    assert post.mails == []


def test_counters_are_forgotten(postman, post, ann) -> None:
    fire(postman, ann, "d")
    postman.work()
    postman.now += timedelta(days=1)
    postman.do(alerts.sum_up_mails)
    postman.now += timedelta(days=31)
    postman.do(alerts.forget_old)
    assert postman.rows("SELECT * FROM mail_day") == []
