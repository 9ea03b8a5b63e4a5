"""Rows of any age in every table that has a period."""

from datetime import datetime

import psycopg

from post import Postman
from support import Tenant

# by table: how a row of an age is made. a: account, d: its device, t: when, n: a number
ROWS = {
    "notice": "(account_id, kind, event, created_at) VALUES (%(a)s, 'usage', 'x', %(t)s)",
    "session": (
        "(account_id, method, created_at, seen_at, authenticated_at, expires_at, ended_at)"
        " VALUES (%(a)s, 'password', %(t)s, %(t)s, %(t)s, %(t)s, %(t)s)"
    ),
    "mail_day": "(account_id, day, mails, summed_up) VALUES (%(a)s, %(t)s, 1, true)",
    "api_usage_day": "VALUES (%(a)s, %(t)s, 0, 1, 1, 1)",
    "device_event": (
        "(account_id, device_id, time, kind) VALUES (%(a)s, %(d)s, %(t)s, 'connected')"
    ),
    "usage_hour": "(account_id, device_id, hour) VALUES (%(a)s, %(d)s, %(t)s)",
    "usage_warning": "(account_id, day, level) VALUES (%(a)s, %(t)s, 80)",
    "rejection_hour": (
        "(account_id, device_id, hour, code, points) VALUES (%(a)s, %(d)s, %(t)s, 'x', 1)"
    ),
    "rejection": (
        "(account_id, device_id, hour, code, time, topic, detail, payload, payload_bytes)"
        " VALUES (%(a)s, %(d)s, %(t)s, 'x', %(t)s, 't', 'x', 'x', 1)"
    ),
    "alert": (
        "(account_id, rule_name, kind, device_id, state, since, resolved_at, reason)"
        " VALUES (%(a)s, 'x', 'offline', %(d)s, 'resolved', %(t)s, %(t)s, 'x')"
    ),
    "delivery": (
        "(account_id, channel_id, event, created_at)"
        " SELECT %(a)s, id, 'test', %(t)s FROM channel"
    ),
    "stripe_event": "(id, type, received_at) VALUES (%(n)s, 'x', %(t)s)",
    "export": (
        "(account_id, format, status, created_at) VALUES (%(a)s, 'csv', 'expired', %(t)s)"
    ),
    "privacy_check": "(at, passed, report) VALUES (%(t)s, true, '{}')",
}  # fmt: skip


def put(postman: Postman, tenant: Tenant, table: str, at: datetime, number: int) -> None:
    values = {"a": tenant.account_id, "d": tenant.devices[0], "t": at, "n": str(number)}
    with psycopg.connect(postman.url, cursor_factory=psycopg.ClientCursor) as conn:
        conn.execute(f"INSERT INTO {table} {ROWS[table]}", values)
