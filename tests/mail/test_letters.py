"""Every mail is read as a person gets it: the words, the link, to whom it goes and to whom not."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from paqett import mail_rendering, mails, notices, tokens
from paqett.errors import Invalid
from paqett.mail_rendering import local_time
from paqett.mail_transport import Mail, MailRefused, compose
from paqett.mails import NOBODY, Template
from paqett.notice_events import EVENTS, OPTIONAL_KINDS
from post import html, plain

LINK = re.compile(
    r"https://telemetry\.example\.org/(\S+)\?token=([A-Za-z0-9_-]{43})$", re.MULTILINE
)
PENDING = "new@example.org"


def send(postman, template: str, account: int) -> None:
    postman.write(lambda conn: mails.defer(conn, template, account))
    postman.work()


def redeem(postman, token: str, *purposes: str) -> tokens.Token:
    return postman.write(lambda conn: tokens.redeem(conn, token, list(purposes), postman.now))


@pytest.mark.parametrize(
    ("name", "page", "purpose", "to"),
    [
        ("verify_email", "verify-email", "verify_email", "ann@example.org"),
        ("reset_password", "reset-password", "reset_password", "ann@example.org"),
        ("change_email", "verify-email", "change_email", PENDING),
    ],
)
def test_a_mail_that_proves_something_carries_a_link_that_works_once(
    postman, person, name, page, purpose, to
) -> None:
    verified = None if name == "verify_email" else postman.now
    ann = person(email_verified_at=verified, pending_email=PENDING)
    send(postman, name, ann.id)
    (mail,) = postman.written()
    assert mail["To"] == to
    ((where, token),) = LINK.findall(plain(mail))
    assert where == page
    assert html(mail).count(f"{page}?token={token}") == 2  # the button, and to be copied
    found = redeem(postman, token, purpose)
    assert (found.account_id, found.email) == (ann.id, to)
    with pytest.raises(Invalid):
        redeem(postman, token, purpose)


@pytest.mark.parametrize(
    ("name", "says"),
    [("verify_email", "24 hours"), ("reset_password", "60 minutes"), ("change_email", "24 hours")],
)
def test_a_link_lasts_as_long_as_its_mail_says(postman, person, name, says) -> None:
    verified = None if name == "verify_email" else postman.now
    ann = person(email_verified_at=verified, pending_email=PENDING)
    send(postman, name, ann.id)
    (mail,) = postman.written()
    assert f"for {says}." in plain(mail).replace("\n", " ")
    ((_, token),) = LINK.findall(plain(mail))
    number, unit = says.split()
    postman.later(**{unit: int(number)})
    with pytest.raises(Invalid):
        redeem(postman, token, name)


def test_a_code_has_eight_digits_and_stands_in_the_body_alone(postman, person) -> None:
    ann = person()
    send(postman, "reauthenticate_code", ann.id)
    (mail,) = postman.written()
    (code,) = re.findall(r"^ +(\d{8})$", plain(mail), re.MULTILINE)
    assert code in html(mail)
    assert not any(code in value for value in mail.values())
    found = postman.write(lambda conn: tokens.redeem_code(conn, ann.id, code, postman.now))
    assert found.purpose == "reauthenticate"


@pytest.mark.parametrize("name", ["already_registered", "email_in_use"])
def test_a_mail_that_only_tells_issues_no_token(postman, person, name) -> None:
    send(postman, name, person().id)
    (mail,) = postman.written()
    assert "nothing was changed" in plain(mail).replace("\n", " ")
    assert "https://telemetry.example.org" in plain(mail)
    assert "token" not in plain(mail) + html(mail)
    assert postman.rows("SELECT * FROM account_token") == []


def test_every_template_is_read_here() -> None:
    folder = Path(mail_rendering.__file__).parent / "mail_templates" / "mails"
    named = {path.stem for path in folder.glob("*.jinja")}
    assert named == {*get_args(Template), "operator_report", "account_erased"}


@pytest.mark.parametrize("event", sorted(e for e in EVENTS if EVENTS[e].mailed))
def test_every_event_makes_a_mail_in_plain_text_and_html(postman, person, event) -> None:
    ann = person(first_name="Ann")
    known = EVENTS[event]
    data = {name: f"<{name}>" for name in {*known.facts.values(), *known.needs}}
    data |= {n: postman.now for n in data if n.endswith(("time", "_at"))}
    postman.write(lambda conn: notices.notify(conn, ann.id, event, **data))
    postman.work()
    if not known.mailed:  # the list of notices alone tells it
        assert postman.written() == []
        return
    (mail,) = postman.written()
    shown = {
        name: local_time(value, "UTC") if isinstance(value, datetime) else value
        for name, value in data.items()
    }
    assert mail["Subject"] == known.title.format_map(shown)
    words = plain(mail)
    assert words.startswith("Hello Ann,\n")
    assert known.text.format_map(shown).split(".")[0] in words.replace("\n", " ")
    for label, name in known.facts.items():
        if isinstance(data[name], str):
            assert f"{label}: <{name}>" in words
            assert f"&lt;{name}&gt;" in html(mail)
    assert "<name>" not in html(mail)
    assert not re.search(r"\n\n\n|[{}]|None", words)
    assert max(len(line) for line in words.splitlines() if "://" not in line) <= 78


def test_times_are_the_accounts_own(postman, person) -> None:
    at = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)
    for zone, shown in (
        ("Europe/Berlin", "2 July 2026, 00:30 CEST"),
        ("America/Sao_Paulo", "1 July 2026, 19:30 UTC-03"),
        ("Nowhere/../../etc", "1 July 2026, 22:30 UTC"),
    ):
        ann = person(f"{shown[:2].strip()}{zone[:3]}@example.org", time_zone=zone)
        signed_in = {"ip": "192.0.2.1", "agent": None, "time": at, "method": "password"}
        postman.write(
            lambda conn, to=ann, data=signed_in: notices.notify(conn, to.id, "new_sign_in", **data)
        )
        postman.work()
        mail = postman.written()[-1]
        assert f"When: {shown}\nFrom: 192.0.2.1\nHow: password\n" in plain(mail)


def test_names_greet_people_who_gave_one_and_never_a_stranger(postman, person) -> None:
    ann = person(first_name="Ann", pending_email="stranger@example.org")
    bob = person("bob@example.org")
    eve = person(
        "eve@example.org", email_verified_at=None, first_name="Win at https://evil.example"
    )
    for template, account in (
        ("reset_password", ann), ("reset_password", bob),
        ("change_email", ann), ("verify_email", eve),
    ):  # fmt: skip
        send(postman, template, account.id)
    greetings = [plain(mail).splitlines()[0] for mail in postman.written()]
    assert greetings == ["Hello Ann,", "Hello,", "Hello,", "Hello,"]
    assert "evil" not in html(postman.written()[-1])


@pytest.mark.parametrize(
    ("columns", "sent"),
    [
        ({}, set(get_args(Template)) - {"verify_email", "account_closing"}),
        ({"email_verified_at": None}, {"verify_email"}),
        (
            {"disabled_at": datetime.now(UTC)},
            {
                "already_registered",
                "reset_password",
                "email_in_use",
                "reauthenticate_code",
                "notice",
            },
        ),
        ({"disabled_at": datetime.now(UTC), "email_verified_at": None}, set()),
        (
            {"closing_at": datetime.now(UTC)},
            {
                "already_registered",
                "reset_password",
                "email_in_use",
                "reauthenticate_code",
                "account_closing",
                "notice",
            },
        ),
        ({"closing_at": datetime.now(UTC), "email_verified_at": None}, set()),
    ],
    ids=[
        "verified",
        "unverified",
        "disabled",
        "disabled unverified",
        "closing",
        "closing unverified",
    ],
)
def test_who_gets_what(postman, person, columns, sent) -> None:
    ann = person(pending_email=PENDING, **columns)
    for template in get_args(Template):
        if template == "notice":
            postman.write(lambda conn: notices.notify(conn, ann.id, "account_disabled"))
            postman.work()
        else:
            send(postman, template, ann.id)
    names = {path.name.split("-")[1] for path in postman.folder.glob("*.eml")}
    assert names == sent
    assert postman.rows("SELECT * FROM procrastinate_jobs") == []


def test_nobody_gets_nothing_and_leaves_the_same_row(postman, person) -> None:
    ann = person()
    for account in (NOBODY, ann.id, 2_000_000_000):
        postman.write(lambda conn, to=account: mails.defer(conn, "reset_password", to))
    rows = postman.rows("SELECT task_name, args FROM procrastinate_jobs ORDER BY id")
    assert [(name, {**args, "account_id": 0}) for name, args in rows] == [rows[0]] * 3
    postman.work()
    assert [mail["To"] for mail in postman.written()] == [ann.email]
    assert postman.rows("SELECT * FROM procrastinate_jobs") == []


def test_a_job_takes_ids_and_nothing_else(postman) -> None:
    for wrong in ("ann@example.org", None, 1.5, True, b"secret"):
        with pytest.raises(TypeError, match="ids alone"):
            postman.write(lambda conn, w=wrong: mails.defer(conn, "notice", 1, notice=w))
    assert postman.rows("SELECT * FROM procrastinate_jobs") == []


HOSTILE = "Ann\r\nBcc: victim@example.org\r\n\r\nBody"


def test_nothing_from_outside_becomes_a_header(postman, person) -> None:
    ann = person(first_name=HOSTILE)
    key = {"name": HOSTILE, "hint": "pqt_\nX: y"}
    postman.write(lambda conn: notices.notify(conn, ann.id, "key_created", **key))
    send(postman, "reset_password", ann.id)
    for mail in postman.written():
        assert set(mail.keys()) == {
            "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version",
            "Content-Type",
        }  # fmt: skip
        assert mail["To"] == "ann@example.org"
    stored = postman.rows("SELECT data FROM notice")[0][0]
    assert all(value.isprintable() for value in stored.values())


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.org\r\nBcc: victim@example.org",
        "ann@example.org, victim@example.org",
        "ann@example.org\nX: y",
        "Ann <ann@example.org>",
        "ann",
        "",
    ],
)
def test_an_address_that_is_more_than_one_address_is_refused(address) -> None:
    mail = Mail(address, "notice", "Subject", "text", "<p>html</p>", "id")
    with pytest.raises(MailRefused) as refused:
        compose(mail, "Paqett <no-reply@example.org>", datetime.now(UTC))
    assert "example" not in str(refused.value)


def test_a_subject_is_one_line_whatever_an_event_carries() -> None:
    words = {"first_name": None, "public_url": "https://x", "unsubscribe": None, "facts": []}
    rendered = mail_rendering.render("notice", title=HOSTILE, text="x", **words)
    assert rendered.subject == "Ann Bcc: victim@example.org Body"
    assert mail_rendering.render("notice", title="a" * 500, text="x", **words).subject == "a" * 500


def test_an_accent_survives_the_way(postman, person) -> None:
    ann = person("ann@müller.example", first_name="Zoë 🌱")
    send(postman, "reset_password", ann.id)
    (mail,) = postman.written()
    assert mail["To"] == "ann@xn--mller-kva.example"
    assert plain(mail).startswith("Hello Zoë 🌱,\n")
    assert all(byte < 128 for path in postman.folder.glob("*.eml") for byte in path.read_bytes())


def test_an_essential_mail_offers_no_way_out_and_another_does(postman, person) -> None:
    ann = person()
    for kind in ("security", *OPTIONAL_KINDS):
        postman.rows(
            "INSERT INTO notice (account_id, kind, event) VALUES (%s, %s, 'account_enabled')",
            ann.id, kind,
        )  # fmt: skip
    ids = postman.rows("SELECT id FROM notice ORDER BY id")

    async def defer(conn) -> None:
        for (notice,) in ids:
            await mails.defer(conn, "notice", ann.id, notice=notice)

    postman.write(defer)
    postman.work()
    ways_out = {}
    for mail in postman.written():
        link = mail["List-Unsubscribe"]
        ways_out[mail["Message-ID"]] = link
        if link is None:
            assert "No more mails" not in plain(mail) + html(mail)
            continue
        assert link.startswith("<https://telemetry.example.org/unsubscribe?token=")
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert f"No more mails of this kind: {link[1:-1]}\n" in plain(mail)
        assert link[1:-1] in html(mail)
    assert len(ways_out) == len(OPTIONAL_KINDS) + 1
    assert [link is None for link in ways_out.values()].count(True) == 1
    raw = b"".join(path.read_bytes() for path in postman.folder.glob("*.eml"))
    assert raw.count(b"\r\nList-Unsubscribe: <https://") == len(OPTIONAL_KINDS)  # not encoded


def test_durations_are_said_as_people_say_them() -> None:
    said = {60: "1 minute", 600: "10 minutes", 3600: "60 minutes", 7200: "2 hours",
            86_400: "24 hours", 172_800: "2 days", 5400: "90 minutes", 1: "1 minute"}  # fmt: skip
    assert {seconds: mail_rendering.lasting(seconds) for seconds in said} == said
