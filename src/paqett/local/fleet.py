"""Accounts and devices for a simulated fleet, made and removed together."""

import msgspec

from paqett import jobs
from paqett.db import Connection
from paqett.errors import NotFound
from paqett.mqtt.credentials import new_device_id, new_secret, verifier
from paqett.plans import Plan
from paqett.sqlfiles import query


class SimDevice(msgspec.Struct, frozen=True):
    """One simulated device and its secret."""

    id: str
    secret: str
    account_id: int


async def create(
    conn: Connection, name: str, devices: int, accounts: int, plan: Plan
) -> list[SimDevice]:
    """`devices` devices spread over `accounts` accounts; a fleet of that name is taken up again."""
    values = {"name": name, "plan": plan.name, "tier": plan.tier, "accounts": accounts}
    await conn.execute(query("unscoped_fleet_accounts"), values)
    rows = await (
        await conn.execute(query("unscoped_fleet_account_ids"), {"name": name})
    ).fetchall()
    owners = [row["account_id"] for row in rows][:accounts]
    ids = [new_device_id() for _ in range(devices)]
    secrets = [new_secret() for _ in ids]
    made = await conn.execute(
        query("unscoped_fleet_devices"),
        {
            "ids": ids,
            "accounts": [owners[n % len(owners)] for n in range(devices)],
            "names": [f"sim-{n}" for n in range(devices)],
            "verifiers": [verifier(secret) for secret in secrets],
        },
    )
    numbers = {f"sim-{n}": secret for n, secret in enumerate(secrets)}
    return [
        SimDevice(row["id"], numbers[row["thing_name"]], row["account_id"])
        for row in await made.fetchall()
    ]


async def remove(conn: Connection, name: str) -> None:
    """The fleet's accounts go; their readings are erased by jobs. Raises `NotFound`."""
    # so that no flush in flight makes a series after they were counted
    await conn.execute(query("lock_directory"))
    rows = await (
        await conn.execute(query("unscoped_fleet_account_ids"), {"name": name})
    ).fetchall()
    if not rows:
        raise NotFound(f"There is no fleet {name}.")
    for row in rows:
        account = row["account_id"]
        found = await conn.execute(query("fleet_series"), {"account_id": account})
        series = [entry["id"] for entry in await found.fetchall()]
        await conn.execute(query("fleet_remove"), {"account_id": account})
        if series:
            await jobs.defer(
                conn, "erase_series", lock=f"erase {account}", account_id=account, series_ids=series
            )
