"""What alert rules cost ingest: the same load without rules, and with one on every device.

10,000 devices send messages of 3 points; each rule is about one device and one of its metrics, and
none of them fires. The runs alternate, and the cost is the ratio of their medians: of the rate,
and of what a message costs in CPU, which depends less on who else uses the machine.
"""

from dataclasses import replace
from statistics import median
from typing import Any

from suite.form import Form
from suite.load import Run, drive
from suite.measured import SINGLE, sized
from suite.stand import Stand, stand

WITHOUT, WITH = "without rules", "a rule on every device"
_DEVICES = 10  # times the form's
_ROUNDS = 3


def _make_rules(made: Stand) -> None:
    made.conn.execute(
        "INSERT INTO alert_watch (account_id, version) SELECT DISTINCT account_id, 1 FROM device"
        " ON CONFLICT DO NOTHING"
    )
    made.conn.execute(
        "INSERT INTO alert_rule (account_id, name, kind, device_id, metric, operator, threshold,"
        " for_s, created_at, changed_at)"
        " SELECT account_id, 'bench', 'threshold', id, 'temperature', '>', 1000, 0, now(), now()"
        " FROM device"
    )
    made.conn.execute("ANALYZE alert_rule")


def _drop_rules(made: Stand) -> None:
    made.conn.execute("DELETE FROM alert_rule")


def _cost_us(run: Run) -> float:
    """CPU of ingest and its connection for a message, in µs."""
    spent = run.cpu_seconds["ingest"] + run.cpu_seconds["postgres, ingest's"]
    return spent / run.messages * 1e6


def run(form: Form) -> dict[str, Any]:
    """Both kinds of runs in turn; the first message of each device after a change is warm-up."""
    runs: dict[str, list[Run]] = {WITHOUT: [], WITH: []}
    with stand(_DEVICES * form.devices) as made:
        made.start()
        load = sized(made, SINGLE, form.seconds)
        for _ in range(_ROUNDS):
            for name, change in ((WITHOUT, _drop_rules), (WITH, _make_rules)):
                change(made)
                drive(made, replace(load, messages=len(made.devices)))
                runs[name].append(drive(made, load))
        fired = made.conn.execute("SELECT count(*) FROM alert").fetchone()
    figures = [
        {
            "name": name,
            "rules": len(made.devices) if name == WITH else 0,
            "rows_per_second": round(median(run.rows_per_second for run in found)),
            "messages_per_second": round(median(run.messages_per_second for run in found)),
            "cpu_us_a_message": round(median(_cost_us(run) for run in found), 1),
            "runs": [run.report() for run in found],
        }
        for name, found in runs.items()
    ]
    without, with_rules = figures
    return {
        "figures": figures,
        "alerts": fired[0] if fired else None,
        "rate_cost": round(1 - with_rules["rows_per_second"] / without["rows_per_second"], 3),
        "cpu_cost": round(with_rules["cpu_us_a_message"] / without["cpu_us_a_message"] - 1, 3),
    }
