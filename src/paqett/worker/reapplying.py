"""After a restore: what was erased since the backup is erased again."""

import msgspec

from paqett import accounts, devices
from paqett.app import Services
from paqett.db import transaction
from paqett.erasure import closing, steps, tombstones
from paqett.erasure.tombstones import Tombstone
from paqett.sqlfiles import query
from paqett.worker.erasure import erase


class Reapplied(msgspec.Struct, frozen=True):
    """What a restored state held of what had been erased before; `known` is the file's length."""

    known: int
    accounts: int
    devices: int


async def reapply(services: Services) -> Reapplied:
    """Erase whatever of the tombstones is there again; call it before anybody else is let in.

    Raises `ConfigurationError` for a file that is none of ours.
    """
    stones = list(tombstones.read(services.settings.backup_dir))
    counted = {True: 0, False: 0}
    for stone in stones:
        whole = stone.device is None
        found = await (_find_account if whole else _find_device)(services, stone)
        if found is not None:
            await erase(services, found)
            counted[whole] += 1
    return Reapplied(len(stones), counted[True], counted[False])


async def _find_account(services: Services, stone: Tombstone) -> str | None:
    values = {"account": stone.account, "made_at": stone.made_at}
    async with transaction(services.pool) as conn:
        if await (await conn.execute(query("same_account"), values)).fetchone() is None:
            return None
        await closing.ask(conn, stone.account, "restore", services.clock(), at_once=True)
        return await steps.erasure_of(conn, stone.account, None)


async def _find_device(services: Services, stone: Tombstone) -> str | None:
    async with transaction(services.pool) as conn:
        values = {"device": stone.device}
        found = await conn.execute(query("unscoped_owner_of_device"), values)
        row = await found.fetchone()
        if row is not None:
            account = await accounts.find(conn, str(row["account_id"]))
            await devices.delete(conn, account, stone.device or "")
        return await steps.erasure_of(conn, stone.account, stone.device)
