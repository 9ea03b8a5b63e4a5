"""Readings that follow a change of plan: carried, watched, and told of before they are erased."""

from procrastinate import App
from prometheus_client import Gauge

from paqett import jobs, log, moves
from paqett.app import Services
from paqett.db import transaction
from paqett.errors import NotRetried, PaqettError
from paqett.sqlfiles import query

EVERY_S = 2.0
_logger = log.get("worker")
_moves_open = Gauge("paqett_moves_open", "Accounts whose readings move from tier to tier.")
_oldest_move = Gauge("paqett_oldest_move_age_seconds", "How long the longest of them takes.")


def register(app: App) -> None:
    """Tell procrastinate what this task's name means."""

    @app.task(name="report_long_move")
    async def report_long_move(account_id: int) -> None:
        """It fails, and the failed job is how an operator hears of it."""
        raise NotRetried(f"the readings of account {account_id} take long to move: see the log")


async def move_readings(open_services: Services) -> None:
    """Carry every open move to its end, and begin those whose grace is over.

    Each account by itself: what is wrong with one keeps no other waiting.
    """
    now = open_services.clock()
    async with transaction(open_services.pool) as conn:
        due = await (
            await conn.execute(query("unscoped_due_tier_changes"), {"now": now})
        ).fetchall()
    for row in due:
        try:
            async with transaction(open_services.pool) as conn:
                await moves.apply_due(conn, row["id"], open_services.plans, now)
        except PaqettError as error:
            _logger.error("readings cannot follow", account=row["id"], error=str(error))
    async with transaction(open_services.pool) as conn:
        open_moves = await (await conn.execute(query("unscoped_open_moves"))).fetchall()
    for row in open_moves:
        await move_account(open_services, row["id"])


async def move_account(open_services: Services, account_id: int) -> None:
    """Slice by slice until nothing is left, then close."""
    closed = False
    while not closed:
        more = True
        while more:
            async with transaction(open_services.pool) as conn:
                more = await moves.move_slice(conn, account_id, open_services.clock())
        async with transaction(open_services.pool) as conn:
            closed = await moves.close_move(conn, account_id)
    _logger.info("moved", account=account_id)


async def watch_moves(open_services: Services) -> None:
    """How long moves take; one that takes too long is a failed job, which an operator is mailed."""
    now = open_services.clock()
    async with transaction(open_services.pool) as conn:
        state = await (await conn.execute(query("unscoped_move_state"))).fetchone()
        for account_id in await moves.report_long(conn, now):
            await jobs.defer(conn, "report_long_move", account_id=account_id)
    begun = state and state["begun_at"]
    _moves_open.set(state["open"] if state else 0)
    _oldest_move.set((now - begun).total_seconds() if begun else 0)


async def remind_of_grace(open_services: Services) -> None:
    """Whose older readings are erased soon hears of it twice more."""
    async with transaction(open_services.pool) as conn:
        await moves.remind(conn, open_services.plans, open_services.clock())
