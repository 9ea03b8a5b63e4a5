"""The processes' own roles sign in with passwords that settings, or `paqett up`, chose."""

from collections.abc import Mapping

from psycopg import sql
from psycopg.errors import InsufficientPrivilege, UndefinedObject

from paqett.db import Connection
from paqett.errors import ConfigurationError


async def set_passwords(conn: Connection, passwords: Mapping[str, str]) -> None:
    """Give each role (`api`, `ingest`, …) of the connection's database its password; "" keeps it.

    Only SCRAM verifiers travel. Raises `ConfigurationError` where `conn` may not, or there is no
    such role.
    """
    database = conn.info.dbname
    for role, password in passwords.items():
        if not password:
            continue
        name = f"{database}_{role}"
        verifier = conn.pgconn.encrypt_password(
            password.encode(), name.encode(), b"scram-sha-256"
        ).decode()
        change = sql.SQL("ALTER ROLE {} PASSWORD {}")
        try:
            await conn.execute(change.format(sql.Identifier(name), sql.Literal(verifier)))
        except (InsufficientPrivilege, UndefinedObject) as error:
            raise ConfigurationError(
                f"the password of the role {name} could not be set ({error.diag.message_primary}):"
                " run this with a superuser's PAQETT_DATABASE__URL, or unset [roles]"
            ) from None
