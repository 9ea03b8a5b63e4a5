"""What `paqett torture` found: for programs, and as a table for people."""

from datetime import datetime

import msgspec


class Round(msgspec.Struct, frozen=True):
    """One kill; `back_s` is the time until a reading measured after it was stored, None if never.

    For `api` and `worker` also until they answer.
    """

    number: int
    target: str
    killed_at: datetime
    back_s: float | None


class Report(msgspec.Struct, frozen=True):
    """What came of it. A point is one metric value.

    `promised` is the points of the acknowledged messages; `stored` counts those of messages whose
    acknowledgement was lost on its way too.
    """

    seed: int
    rounds: list[Round]
    published_messages: int
    acknowledged_messages: int
    promised_points: int
    stored_points: int
    missing_points: int
    doubled_points: int
    passed: bool


def row_of(entry: Round) -> str:
    """One round as a line of the table."""
    back = "not back" if entry.back_s is None else f"{entry.back_s:.2f} s"
    return f"{entry.number:>5}  {entry.target:<8}  {entry.killed_at:%H:%M:%S.%f}  {back:>9}"


def table(report: Report) -> str:
    """The report for people."""
    lines = [
        "round  target    killed (UTC)     back after",
        *map(row_of, report.rounds),
        "",
        f"published     {report.published_messages:>12,} messages",
        f"acknowledged  {report.acknowledged_messages:>12,} messages",
        f"promised      {report.promised_points:>12,} points, one metric value each",
        f"stored        {report.stored_points:>12,} points",
        f"missing       {report.missing_points:>12,} points",
        f"doubled       {report.doubled_points:>12,} points",
        f"{'passed' if report.passed else 'FAILED'} (seed {report.seed})",
    ]
    return "\n".join(lines)
