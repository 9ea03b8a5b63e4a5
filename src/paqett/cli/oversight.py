"""`paqett admin usage`, `jobs`, `retry-job`, `retention` and `top`: how a deployment does."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from paqett import db, jobs, oversight, usage
from paqett.accounts import Account
from paqett.cli.commands import JSON, Commands, arg, flag, positive
from paqett.cli.output import say
from paqett.cli.running import plan_named, with_account, with_database
from paqett.settings import Settings


def register(actions: Commands) -> None:
    """Counts, never readings."""
    actions.add(
        "usage", _usage, "what an account has used of its plan, or all have",
        arg("account", nargs="?", help="id or e-mail; none: every account"),
        arg("--days", type=int, default=30, help="how many days before today"), JSON,
    )  # fmt: skip
    about = "jobs that failed, wait for another try, or run"
    actions.add("jobs", with_database(_jobs), about, JSON)
    actions.add(
        "retry-job", with_database(_retry_job), "try a failed job again",
        arg("job", type=int, help="its number in `paqett admin jobs`"), JSON,
    )  # fmt: skip
    about = "each tier's policy and its oldest reading"
    actions.add("retention", with_database(_retention), about, JSON)
    actions.add(
        "top", with_database(_top), "the devices that send the most, or what fills the disk",
        flag("--tables", "tables instead of devices"),
        arg("--days", type=positive, default=7, help="of devices: how far back"),
        arg("--limit", type=positive, default=20), JSON,
    )  # fmt: skip


def _usage(settings: Settings, arguments: argparse.Namespace) -> int:
    everybody = arguments.account is None
    run = with_database(_usage_of_all) if everybody else with_account(_usage_of_one)
    return run(settings, arguments)


async def _usage_of_all(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> Any:
    return await oversight.usage(conn, datetime.now(UTC).date() - timedelta(days=arguments.days))


async def _usage_of_one(
    conn: db.Connection, account: Account, settings: Settings, arguments: argparse.Namespace
) -> Any:
    plan = plan_named(settings, account.plan)
    return await usage.today(conn, account, plan, datetime.now(UTC), arguments.days)


async def _jobs(conn: db.Connection, _: Settings, __: argparse.Namespace) -> Any:
    return await jobs.list_unfinished(conn)


async def _retry_job(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> None:
    await jobs.retry(conn, arguments.job)
    say(f"job {arguments.job} is tried again")


async def _retention(conn: db.Connection, _: Settings, __: argparse.Namespace) -> Any:
    return await oversight.retention(conn)


async def _top(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> Any:
    if arguments.tables:
        return await oversight.largest_tables(conn, arguments.limit)
    return await oversight.largest_devices(conn, arguments.days, arguments.limit)
