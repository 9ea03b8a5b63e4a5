"""`paqett doctor`: what a deployment gets wrong, each finding with the way to mend it."""

import shutil
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from paqett import grafana, jobs, mail_transport, retention
from paqett.db import Connection
from paqett.errors import ConfigurationError
from paqett.settings import SHORTEST_SECRET, Settings
from paqett.sqlfiles import query

_WATCH_LATE = timedelta(minutes=1)


class Finding(msgspec.Struct, frozen=True):
    """One line of the report; `mend` says what to do where `state` is not ok."""

    subject: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    mend: str = ""


class Edition(msgspec.Struct, frozen=True):
    """The extension: `license` is `apache` or `timescale` (Community)."""

    version: str
    license: str
    postgres: str


async def edition(conn: Connection) -> Edition:
    """Which TimescaleDB this is."""
    row = await (await conn.execute(query("unscoped_edition"))).fetchone()
    if row is None:
        return Edition("none", "none", "unknown")
    return Edition(row["version"], row["license"] or "unknown", row["postgres"])


def examine_machine(settings: Settings) -> list[Finding]:
    """What can be seen without the database: spool, broker, mail, what the policy lacks."""
    return [_spool(settings), _exposure(settings), _mail(settings), _privacy(settings)]


def _spool(settings: Settings) -> Finding:
    folder = settings.data_dir / "ingest" / "spool"
    if not folder.exists():
        return Finding("spool", "ok", f"none at {folder}: ingest has not run here")
    try:
        size = sum(path.stat().st_size for path in folder.glob("*.spool"))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("spool", "warning", f"{folder}: {error}", "run this as ingest's user")
    detail = f"{size:,} of {settings.ingest.spool_max_bytes:,} bytes, {free:,} free on its disk"
    if free < settings.ingest.spool_min_free_bytes or size >= settings.ingest.spool_max_bytes:
        return Finding(
            "spool",
            "failed",
            f"{detail}: takes nothing more, messages wait in the broker",
            "make room, raise ingest.spool_max_bytes, or bring the database back",
        )
    if size:
        mend = "bring the database back, or look why it is slower than the arrivals"
        return Finding("spool", "warning", f"{detail}: waiting for the database", mend)
    return Finding("spool", "ok", detail)


def _exposure(settings: Settings) -> Finding:
    """What of what devices were told is safe a killed broker can lose."""
    broker = settings.broker
    if broker.kind != "mosquitto" and len(broker.auth_secret) < SHORTEST_SECRET:
        detail = f"{broker.kind} cannot ask the API who may sign in"
        return Finding("broker", "failed", detail, "set broker.auth_secret: see docs/brokers.md")
    if broker.kind == "rabbitmq":
        detail = "RabbitMQ acknowledges from disk: killing it loses nothing that ingest waits for"
        return Finding("broker", "ok", detail)
    if settings.mqtt.share_group:
        return Finding("broker", "ok", f"shared subscriptions as {settings.mqtt.share_group}")
    if broker.kind == "emqx":
        return Finding("broker", "warning", "EMQX is untested", "see docs/brokers.md")
    return Finding(
        "broker",
        "ok",
        "Mosquitto acknowledges from memory: killing it can lose what ingest has not read yet"
        " (/metrics: paqett_ingest_broker_dropped_messages)",
    )


def _mail(settings: Settings) -> Finding:
    mail = settings.mail
    try:
        mail_transport.check(mail)
    except ConfigurationError as error:
        return Finding("mail", "failed", str(error), "change the settings in [mail]")
    if mail.smtp_host:
        return Finding("mail", "ok", f"by {mail.smtp_host}:{mail.smtp_port}, {mail.smtp_tls}")
    detail = f"written to {settings.data_dir / 'mail'}: nobody gets any"
    if settings.behind_tls:
        return Finding("mail", "warning", detail, "set mail.smtp_host")
    return Finding("mail", "ok", detail)


def _privacy(settings: Settings) -> Finding:
    """The policy must name who is responsible, at the latest where strangers can reach it."""
    own = settings.privacy
    named = {
        "controller": own.controller, "contact": own.contact, "hosting_region": own.hosting_region,
    }  # fmt: skip
    lacking = [name for name, text in named.items() if not text.strip()]
    if not lacking:
        return Finding("privacy", "ok", f"/privacy names {own.contact} and {own.hosting_region}")
    detail = f"/privacy does not say: {', '.join(lacking)}"
    mend = f"set {', '.join(f'privacy.{name}' for name in lacking)}"
    return Finding("privacy", "warning" if settings.behind_tls else "ok", detail, mend)


async def examine(conn: Connection, now: datetime) -> list[Finding]:
    """Edition, REVOKEs, jobs, SQL logins and their watch, and the state of every retention."""
    logins = await grafana.state(conn)
    found = [_edition_finding(await edition(conn)), await _revokes(conn), await _jobs(conn)]
    found += [_logins_finding(logins), _watch_finding(logins, now)]
    found += [_tier_finding(state, now) for state in await retention.states(conn)]
    return found


def _edition_finding(found: Edition) -> Finding:
    detail = f"TimescaleDB {found.version} ({found.license}) on PostgreSQL {found.postgres}"
    if found.license == "apache":
        detail += ": the worker applies retention with drop_chunks"
    return Finding("edition", "ok", detail)


async def _revokes(conn: Connection) -> Finding:
    row = await (await conn.execute(query("unscoped_open_routines"))).fetchone()
    count = row["open"] if row else 0
    if count:
        return Finding(
            "revokes",
            "failed",
            f"{count} of TimescaleDB's internal routines may be called by any SQL login",
            "run `paqett migrate` with a superuser's PAQETT_DATABASE__URL",
        )
    return Finding("revokes", "ok", "TimescaleDB's internal routines are closed to other logins")


async def _jobs(conn: Connection) -> Finding:
    counted = await jobs.counts(conn)
    detail = f"{counted['todo']} to do, {counted['doing']} in hand, {counted['failed']} failed"
    if counted["failed"]:
        mend = "`paqett admin jobs` tells why, `paqett admin retry-job ID` tries one again"
        return Finding("jobs", "warning", detail, mend)
    return Finding("jobs", "ok", detail)


def _logins_finding(found: grafana.State) -> Finding:
    """Roles' attributes, and what PostgreSQL leaves open to any login."""
    subject = "sql logins"
    migrate = "run `paqett migrate` with a superuser's PAQETT_DATABASE__URL"
    if not found.can_create and not found.logins:
        return Finding(subject, "ok", "refused: this server's roles were not made by a superuser")
    if not found.can_create or not found.closed:
        detail = f"{found.open_routines} routines and {found.open_tables} tables are open to PUBLIC"
        if found.open_temporary:
            detail += ", and so are temporary tables"
        return Finding(subject, "failed", detail, migrate)
    if found.odd_logins or found.stray_roles:
        detail = f"{found.odd_logins} are not as they were made, {found.stray_roles} are nobody's"
        mend = "compare pg_roles with admin.sql_logins; drop what is not known"
        return Finding(subject, "failed", detail, mend)
    if found.logins and found.prepared_transactions:
        detail = "max_prepared_transactions lets a login leave locks behind"
        return Finding(subject, "warning", detail, "set max_prepared_transactions = 0")
    return Finding(subject, "ok", f"{found.logins}, apart from one another")


def _watch_finding(found: grafana.State, now: datetime) -> Finding:
    if not found.logins:
        return Finding("watch", "ok", "no SQL logins to watch")
    seen = found.watched_at
    detail = f"last looked {seen.isoformat() if seen else 'never'}"
    if seen is None or now - seen > _WATCH_LATE:
        return Finding("watch", "failed", detail, "start `paqett worker`")
    return Finding("watch", "ok", detail)


def _tier_finding(state: retention.TierState, now: datetime) -> Finding:
    oldest = state.oldest.isoformat() if state.oldest else "none"
    detail = (
        f"{state.retention.days} days, by {state.retention_by}, oldest reading {oldest},"
        f" {len(state.jobs)} policies"
    )
    if state.jobs and state.by_worker:
        detail += ", which rest while readings move out of it: the worker drops what has expired"
    if state.jobs and state.columnstore_after:
        detail += f", columnstore after {state.columnstore_after.days} days"
    if state.overdue(now):
        return Finding(f"tier {state.name}", "failed", detail, "start `paqett worker`; see its log")
    if state.retention_by == "timescaledb" and len(state.jobs) != 2:
        return Finding(f"tier {state.name}", "failed", detail, "run `paqett migrate`")
    return Finding(f"tier {state.name}", "ok", detail)
