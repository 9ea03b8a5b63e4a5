"""Everything an account may have, in every table and folder, with its own mark in each text."""

import hashlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from paqett.mqtt.credentials import new_device_id, new_secret, verifier

TIERS = ("free", "paid", "own")
_ONE_EACH = (
    "INSERT INTO api_key (account_id, name, hint, hash, scopes, last_used_ip) VALUES"
    " (%(account)s, %(mark)s, 'pqt_0', %(bytes)s, '{export}', '192.0.2.1')",
    "INSERT INTO session (account_id, hash, method, created_at, seen_at, authenticated_at,"
    " expires_at, ip, agent) VALUES (%(account)s, %(bytes)s, 'password', now(), now(), now(),"
    " now() + interval '1 day', '192.0.2.1', %(mark)s)",
    "INSERT INTO account_token VALUES"
    " (%(bytes)s, %(account)s, 'change_email', %(email)s, now(), now() + interval '1 day')",
    "INSERT INTO identity VALUES ('github', %(mark)s, %(account)s, %(email)s, now(), now())",
    "INSERT INTO sign_in_attempt VALUES (%(bytes)s, 'github', %(mark)s, '/', true, %(account)s,"
    " now(), now() + interval '1 day')",
    "INSERT INTO notice (account_id, kind, event, data, mail_to) VALUES"
    " (%(account)s, 'security', 'key_created', jsonb_build_object('name', %(mark)s::text),"
    " %(email)s)",
    "INSERT INTO notification_preference VALUES (%(account)s, 'device', true, true)",
    "INSERT INTO api_usage_day VALUES (%(account)s, current_date, 0, 1, 1, 1)",
    "INSERT INTO request_window VALUES (%(account)s, now(), 1, 1)",
    "INSERT INTO subscription (account_id, customer_key) VALUES (%(account)s, %(mark)s)",
    "INSERT INTO move (account_id, begun_at, carried_to, until) VALUES"
    " (%(account)s, now(), now(), now())",
    "INSERT INTO view (account_id, name, shown, created_at, changed_at) VALUES"
    " (%(account)s, %(mark)s, %(mark)s, now(), now())",
    "INSERT INTO export (account_id, format, status, created_at, sha256) VALUES"
    " (%(account)s, 'ndjson', 'ready', now(), %(mark)s)",
    "INSERT INTO usage_warning VALUES (%(account)s, current_date, 80)",
    "INSERT INTO allowance VALUES (%(account)s, current_date, 1, 1, now(), %(mark)s)",
    "INSERT INTO alert_watch VALUES (%(account)s, 1)",
    "INSERT INTO export (account_id, format, created_at) VALUES (%(account)s, 'csv', now())",
    "INSERT INTO mail_day VALUES (%(account)s, current_date, 1)",
    "INSERT INTO channel (account_id, name, url, secret, created_at) VALUES"
    " (%(account)s, %(mark)s, 'https://' || %(mark)s || '.example', %(mark)s, now())",
    "INSERT INTO delivery (account_id, channel_id, event) SELECT account_id, id, %(mark)s"
    " FROM channel WHERE account_id = %(account)s",
    "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, args) VALUES ('default',"
    " 'send_mail', %(mark)s,"
    " jsonb_build_object('account_id', %(account)s::int, 'to', %(mark)s::text))",
    "INSERT INTO job_error SELECT id, %(mark)s, now() FROM procrastinate_jobs"
    " WHERE args ->> 'to' = %(mark)s",
    "INSERT INTO sql_login (account_id, role) SELECT %(account)s,"
    " regexp_replace(pg_get_userbyid(proowner), '_logins$', '_grafana_' || %(mark)s)"
    " FROM pg_proc WHERE proname = 'drop_sql_login'",
)
_EACH_DEVICE = (
    "INSERT INTO device_event (account_id, device_id, time, kind, reason, ip) VALUES"
    " (%(account)s, %(device)s, now(), 'connected', %(mark)s, '192.0.2.1')",
    "INSERT INTO usage_hour (account_id, device_id, hour, points) VALUES"
    " (%(account)s, %(device)s, date_trunc('hour', now()), 3)",
    "INSERT INTO rejection_hour VALUES"
    " (%(account)s, %(device)s, date_trunc('hour', now()), 'bad_json', 3)",
    "INSERT INTO rejection (account_id, device_id, hour, code, time, topic, metric, detail,"
    " payload, payload_bytes) VALUES"
    " (%(account)s, %(device)s, now(), 'bad_json', now(), 'telemetry',"
    " %(mark)s, %(mark)s, %(bytes)s, 3)",
    "INSERT INTO alert_rule (account_id, name, kind, device_id, for_s, created_at, changed_at)"
    " VALUES (%(account)s, %(mark)s, 'no_data', %(device)s, 60, now(), now())",
    "INSERT INTO alert (account_id, rule_name, kind, device_id, state, since, reason) VALUES"
    " (%(account)s, %(mark)s, 'no_data', %(device)s, 'firing', now(), %(mark)s)",
    "INSERT INTO stream (id, account_id, device_id, until) VALUES"
    " (gen_random_uuid(), %(account)s, %(device)s, now())",
)


class Belongings(msgspec.Struct):
    """One account: `mark` stands in every text of it."""

    account: int
    mark: str
    email: str
    devices: list[str]
    series: list[int]


class Wanted(msgspec.Struct, frozen=True):
    """How large an account is to be; `moving` has readings in two tiers and a move open."""

    tier: str = "own"
    devices: int = 2
    readings: int = 20
    moving: bool = False
    device_going: bool = False


def make(url: str, wanted: Wanted, number: int, folder: Path) -> Belongings:
    """An account with something in every table, and a mail in the folder."""
    mark = f"zq{number:06d}{random.getrandbits(32):08x}"
    email = f"{mark}@example.org"
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "INSERT INTO account (email, pending_email, first_name, surname, plan, tier,"
            " password_hash, email_verified_at) VALUES"
            " (%s, %s, %s, %s, %s, %s, %s, now()) RETURNING id",
            (email, f"new-{email}", mark, mark, wanted.tier, wanted.tier, mark),
        ).fetchone()  # fmt: skip
        assert row is not None
        made = Belongings(row[0], mark, email, [], [])
        values = {"account": made.account, "mark": mark, "email": email, "bytes": mark.encode()}
        for statement in _ONE_EACH:
            conn.execute(statement, values)
        for n in range(wanted.devices):
            _device(conn, wanted, made, n, values)
        if wanted.moving:
            other = "paid" if wanted.tier != "paid" else "free"
            conn.execute("UPDATE account SET moving_from = %s WHERE id = %s", (other, made.account))
        if wanted.device_going and made.devices:
            _half_deleted(conn, made)
    exports = folder / "exports"
    exports.mkdir(exist_ok=True)
    (exports / f"{made.account}-1.zip").write_text(mark)
    (exports / f"{made.account}-2.part").write_text(mark)
    mails = folder / "mail"
    mails.mkdir(exist_ok=True)
    text = f"From: p@localhost\r\nTo: {email}\r\nSubject: Hello\r\n\r\nHello {mark}\r\n"
    (mails / f"20260101T000000.{number:06d}Z-notice-1.eml").write_text(text)
    return made


def _device(
    conn: psycopg.Connection, wanted: Wanted, made: Belongings, number: int, values: dict[str, Any]
) -> None:
    device = new_device_id()
    made.devices.append(device)
    conn.execute(
        "INSERT INTO device (id, account_id, thing_name, friendly_name, tags, attributes, verifier,"
        " connection_ip) VALUES"
        " (%s, %s, %s, %s, %s, jsonb_build_object('x', %s::text), %s, '192.0.2.1')",
        (device, made.account, f"{made.mark}-{number}", made.mark, [made.mark], made.mark,
         verifier(new_secret())),
    )  # fmt: skip
    for kind, metric in (("number", "t"), ("text", "word")):
        row = conn.execute(
            "INSERT INTO series (account_id, device_id, metric, kind, label) VALUES"
            " (%s, %s, %s, %s, %s) RETURNING id",
            (made.account, device, f"{made.mark}.{metric}", kind, made.mark),
        ).fetchone()
        assert row is not None
        made.series.append(row[0])
        _readings(conn, wanted, made, row[0], text=kind == "text")
        conn.execute(
            "INSERT INTO alert_mark VALUES (%s, %s, %s, now(), now())",
            (row[0], made.account, device),
        )
    for statement in _EACH_DEVICE:
        conn.execute(statement, {**values, "device": device})


def _readings(
    conn: psycopg.Connection, wanted: Wanted, made: Belongings, series: int, *, text: bool
) -> None:
    now = datetime.now(UTC)
    tiers = [wanted.tier, "paid" if wanted.tier != "paid" else "free"]
    for tier in tiers if wanted.moving else tiers[:1]:
        conn.cursor().executemany(
            sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING").format(
                sql.Identifier(f"telemetry_{tier}{'_text' if text else ''}")
            ),
            [
                (now - timedelta(seconds=random.randrange(5 * 86_400)), made.account, series,
                 made.mark if text else float(n))
                for n in range(wanted.readings)
            ],
        )  # fmt: skip


def _half_deleted(conn: psycopg.Connection, made: Belongings) -> None:
    """One of its devices is gone already, and its readings are not."""
    device = made.devices[0]
    conn.execute(
        "INSERT INTO erasure (account_id, device_id, series_ids, asked_by, asked_at, due_at,"
        " queued_at) SELECT %s, %s, array_agg(id), 'person', now(), now(), now()"
        " FROM series WHERE device_id = %s",
        (made.account, device, device),
    )  # fmt: skip
    conn.execute("DELETE FROM device WHERE id = %s", (device,))


def tables(conn: psycopg.Connection) -> dict[str, set[str]]:
    """Every table of ours and of the queue, hypertables as a whole, with its columns."""
    rows = conn.execute(
        "SELECT c.relname, a.attname"
        " FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
        " AND a.attnum > 0 AND NOT a.attisdropped"
    ).fetchall()
    found: dict[str, set[str]] = {}
    for table, column in rows:
        found.setdefault(table, set()).add(column)
    return found


def traces(url: str, gone: Belongings, folder: Path) -> list[str]:
    """Where anything of the account is left: tables by every column, and files."""
    found = []
    hexed = gone.mark.encode().hex()
    ids: dict[str, list[Any]] = {
        "account_id": [gone.account], "device_id": gone.devices, "series_id": gone.series,
    }  # fmt: skip
    with psycopg.connect(url) as conn:
        for table, columns in tables(conn).items():
            name = sql.Identifier(table)
            query = sql.SQL("SELECT count(*) FROM {0} AS t WHERE strpos(t::text, %s) > 0").format(
                name
            )
            found += [
                f"{table}: {text}"
                for text in (gone.mark, hexed, *gone.devices)
                if conn.execute(query, (text,)).fetchone() != (0,)
            ]
            for column in columns & ids.keys():
                query = sql.SQL("SELECT count(*) FROM {} WHERE {} = ANY (%s)").format(
                    name, sql.Identifier(column)
                )
                if conn.execute(query, (ids[column],)).fetchone() != (0,):
                    found.append(f"{table}.{column}")
        if conn.execute("SELECT FROM account WHERE id = %s", (gone.account,)).fetchall():
            found.append("account.id")
        query = "SELECT tablename FROM pg_stats WHERE strpos(pg_stats::text, %s) > 0"
        found += [f"statistics of {row[0]}" for row in conn.execute(query, (gone.mark,)).fetchall()]
        roles = conn.execute(
            "SELECT rolname FROM pg_roles WHERE strpos(rolname, %s) > 0", (gone.mark,)
        )
        found += [f"role {row[0]}" for row in roles.fetchall()]
    for path in folder.rglob("*"):
        if path.is_file() and _is_trace(path, gone):
            found.append(str(path))
    return found


def _is_trace(path: Path, gone: Belongings) -> bool:
    """The receipt is the last mail; in a folder that is its post box it stays for its time."""
    data = path.read_bytes()
    if "-account_erased-" in path.name:
        return any(device.encode() in data for device in gone.devices)
    if path.name == "erasures.ndjson":
        return gone.mark.encode() in data
    return any(text.encode() in data for text in (gone.mark, *gone.devices))


def checksum(url: str, kept: Belongings) -> dict[str, str]:
    """Of every row of the account, table by table."""
    found = {}
    with psycopg.connect(url) as conn:
        for table, columns in tables(conn).items():
            column = "id" if table == "account" else "account_id"
            if column not in columns or table == "directory_change":  # news, and no data
                continue
            rows = conn.execute(
                sql.SQL("SELECT t::text FROM {} AS t WHERE {} = %s ORDER BY 1").format(
                    sql.Identifier(table), sql.Identifier(column)
                ),
                (kept.account,),
            ).fetchall()
            if rows:
                found[table] = hashlib.sha256(repr(rows).encode()).hexdigest()
        jobs = conn.execute(
            "SELECT args::text FROM procrastinate_jobs WHERE args ->> 'account_id' = %s",
            (str(kept.account),),
        ).fetchall()
        found["jobs"] = repr(jobs)
    return found


def unfilled(url: str, made: Belongings) -> set[str]:
    """Tables with an account_id in which the account has nothing: nothing is proved of those."""
    found = set()
    with psycopg.connect(url) as conn:
        for table, columns in tables(conn).items():
            query = sql.SQL("SELECT FROM {} WHERE account_id = %s").format(sql.Identifier(table))
            if "account_id" in columns and not conn.execute(query, (made.account,)).fetchall():
                found.add(table)
    return found
