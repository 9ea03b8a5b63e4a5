"""A database at each earlier schema, with rows of its time; and what a database holds and is."""

import re
import uuid
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg import sql

from paqett import keys, migrate
from paqett.db import Connection
from paqett.sqlfiles import script
from support import at, close, create, drop, in_database

HERE = Path(__file__).parent / "upgrades"
ACCOUNTS = ("own", "free", "paid", "moving")
_SECTION = re.compile(r"^-- after: (\w+)$", re.MULTILINE)
_RERUN = (
    ("hypertables", "tier.sql"),
    *(("policies", f"{tier}.sql") for tier in ("free", "own", "paid")),
    *(("admin", f"{name}.sql") for name in ("erasure", "roles", "grafana", "operator")),
)


def rows_of_each() -> dict[str, str]:
    """The statements of rows.sql by the migration they follow."""
    parts = _SECTION.split((HERE / "rows.sql").read_text())[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def key_of(account: str) -> str:
    """The API key that rows.sql stores of `account`."""
    body = f"{keys.PREFIX}{account:0<32}"
    return body + keys._checksum(body)


class Walk:
    """One database, which can be put back to where it stood after each migration."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._name = f"paqett_walk_{uuid.uuid4().hex[:8]}"
        self.url = at(server, self._name)
        self.steps: list[str] = []
        create(server, self._name)

    def go(self) -> None:
        """Through every migration but the last; what stood after each is kept."""
        in_database(self.url, migrate.bootstrap)
        every = migrate.migrations()
        rows = rows_of_each()
        for number, name in enumerate(list(every)[:-1], 1):
            known = dict(list(every.items())[:number])
            in_database(self.url, lambda conn, known=known: self._step(conn, known, rows))
            self._keep(name)
            self.steps.append(name)

    async def _step(self, conn: Connection, known: dict[str, Any], rows: dict[str, str]) -> None:
        name = list(known)[-1]
        await conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{self._name}_owner")))
        with patch.object(migrate, "migrations", lambda: known):
            await migrate._apply_migrations(conn, migrate.Patience())
        if len(known) == 1:
            await conn.execute((HERE / "tiers_of_0001.sql").read_text())  # type: ignore[arg-type]
        for account in ACCOUNTS:
            await conn.execute(
                "SELECT set_config(%s, %s, false)", (f"upgrade.{account}", key_of(account))
            )
        await conn.execute(rows.get(name, ""))  # type: ignore[arg-type]
        for folder, file in _RERUN:
            # today's fit the youngest of them; what stood there of older ones was like it
            try:
                async with conn.transaction():
                    await conn.execute(script(folder, file))
            except psycopg.errors.Error:
                continue

    def _keep(self, step: str) -> None:
        """A copy that nobody may enter; nor the original meanwhile."""
        close(self._server, self._name)
        create(self._server, self._kept(step), self._name)
        close(self._server, self._kept(step))
        with psycopg.connect(self._server, autocommit=True) as conn:
            name = sql.Identifier(self._name)
            conn.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))

    def _kept(self, step: str) -> str:
        return f"{self._name.replace('walk', 'kept')}_{step[:4]}_{len(step)}"

    def back_to(self, step: str) -> None:
        """The database as it stood right after the migration `step`."""
        with psycopg.connect(self._server, autocommit=True) as conn:
            name = sql.Identifier(self._name)
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        create(self._server, self._name, self._kept(step))

    def drop(self) -> None:
        for step in self.steps:
            drop(self._server, self._kept(step))
        drop(self._server, self._name)


def holds(conn: psycopg.Connection[Any]) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    tables = conn.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ).fetchall()
    select = sql.SQL("SELECT to_jsonb(t) FROM {} AS t ORDER BY 1")
    return {
        name: [row for (row,) in conn.execute(select.format(sql.Identifier(name))).fetchall()]
        for (name,) in tables
    }


_SHAPE = """
SELECT concat_ws(' ', 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                 a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid))
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = ANY (%(ours)s) AND c.relkind IN ('r', 'v') AND a.attnum > 0
  AND NOT a.attisdropped
UNION ALL
SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = ANY (%(names)s)
UNION ALL
SELECT concat_ws(' ', 'constraint', conrelid::regclass, pg_get_constraintdef(oid))
FROM pg_constraint
WHERE connamespace = ANY (%(ours)s) AND contype <> 'n'
UNION ALL
SELECT concat_ws(' ', 'trigger', tgrelid::regclass, pg_get_triggerdef(t.oid)) FROM pg_trigger AS t
JOIN pg_class AS c ON c.oid = tgrelid WHERE c.relnamespace = ANY (%(ours)s) AND NOT tgisinternal
UNION ALL
SELECT concat_ws(' ', 'view', oid::regclass, pg_get_viewdef(oid)) FROM pg_class
WHERE relnamespace = ANY (%(ours)s) AND relkind = 'v'
UNION ALL
SELECT concat_ws(' ', 'function', p.oid::regprocedure, md5(prosrc), prosecdef,
                 pg_get_userbyid(proowner))
FROM pg_proc AS p WHERE pronamespace = ANY (%(ours)s)
UNION ALL
SELECT concat_ws(' ', 'right', c.relname, acl.grantee::regrole, acl.privilege_type)
FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
WHERE c.relnamespace = ANY (%(ours)s)
UNION ALL
SELECT concat_ws(' ', 'right', p.oid::regprocedure, acl.grantee, acl.privilege_type)
FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS acl
WHERE p.pronamespace = ANY (%(ours)s) AND acl.grantee = 0
"""


def shape(conn: psycopg.Connection[Any]) -> set[str]:
    """Tables, indices, constraints, triggers, views, functions and rights; roles without their
    database's name."""
    names = ["public", "admin", "grafana", "grafana_inside"]
    found = conn.execute(
        "SELECT array_agg(oid) FROM pg_namespace WHERE nspname = ANY (%s)", (names,)
    ).fetchone()
    lines = conn.execute(_SHAPE, {"ours": found and found[0], "names": names}).fetchall()
    owner = conn.execute(
        "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'account'::regclass"
    ).fetchone()
    assert owner is not None
    prefix = owner[0].removesuffix("owner")
    return {line.replace(prefix, "paqett_") for (line,) in lines}
