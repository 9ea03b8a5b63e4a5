"""Jobs: rows written in the caller's transaction, worked by `paqett worker`.

procrastinate keeps them in PostgreSQL, so a job exists exactly when what it belongs to was
committed. Tasks are registered by the worker; here they are known by name alone.
"""

from procrastinate import App, PsycopgConnector

from paqett.db import Connection, require_url
from paqett.settings import Database


def app(settings: Database) -> App:
    """The queue on its own small pool; open it with `async with app.open_async()`."""
    return App(connector=PsycopgConnector(conninfo=require_url(settings), min_size=1, max_size=8))


_deferring = App(connector=PsycopgConnector())


async def defer(conn: Connection, task: str, *, lock: str | None = None, **kwargs: object) -> None:
    """Write the job `task` in the transaction of `conn`; jobs with one `lock` run one by one."""
    job = _deferring.configure_task(task, lock=lock, connection=conn)
    await job.defer_async(**kwargs)  # type: ignore[arg-type]
