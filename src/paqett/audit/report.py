"""What a check found: names of tables, counts and ages, never anything of anybody's."""

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby

import msgspec
from psycopg.types.json import Jsonb

from paqett import __version__
from paqett.db import Connection
from paqett.sqlfiles import query


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at; `mend` says what to do where it did not pass."""

    check: str
    subject: str
    passed: bool
    detail: str
    mend: str = ""


class Report(msgspec.Struct, frozen=True):
    """Everything that was looked at at one time, by which version."""

    at: datetime
    version: str
    passed: bool
    looked_at: int
    failed: int
    findings: list[Finding]


def of(findings: Iterable[Finding], at: datetime) -> Report:
    """The report of these findings, those of one check together."""
    given = list(findings)
    checks = list(dict.fromkeys(finding.check for finding in given))
    found = sorted(given, key=lambda finding: checks.index(finding.check))
    failed = sum(not finding.passed for finding in found)
    return Report(at, __version__, failed == 0, len(found), failed, found)


def text(report: Report) -> str:
    """The report for people: a line for each thing, what failed with what to do."""
    outcome = "passed" if report.passed else "FAILED"
    lines = [
        f"Privacy check of {report.at:%Y-%m-%d %H:%M} UTC by Paqett {report.version}: {outcome},"
        f" {report.failed} of {report.looked_at} failed."
    ]
    for check, findings in groupby(report.findings, key=lambda finding: finding.check):
        lines += ["", check]
        for finding in findings:
            state = "passed" if finding.passed else "FAILED"
            lines.append(f"  {state}  {finding.subject}: {finding.detail}")
            if not finding.passed and finding.mend:
                lines.append(f"          {finding.mend}")
    return "\n".join(lines)


def summary(report: Report) -> str:
    """Which checks failed, how often, in one sentence."""
    failed = [finding.check for finding in report.findings if not finding.passed]
    named = ", ".join(f"{check} ({failed.count(check)})" for check in dict.fromkeys(failed))
    return f"{report.failed} of {report.looked_at} failed: {named}; see `paqett privacy check`"


async def keep(conn: Connection, report: Report) -> None:
    """Store it, for as long as the register says."""
    values = {
        "at": report.at, "passed": report.passed, "report": Jsonb(msgspec.to_builtins(report)),
    }  # fmt: skip
    await conn.execute(query("unscoped_keep_privacy_check"), values)


async def newest(conn: Connection) -> Report | None:
    """The last one that was stored."""
    row = await (await conn.execute(query("unscoped_newest_privacy_check"))).fetchone()
    return None if row is None else msgspec.convert(row["report"], Report)
