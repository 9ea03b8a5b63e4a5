"""A PostgreSQL cluster of our own, on this machine's binaries, with TimescaleDB loaded."""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
import psycopg.sql

from paqett.children import die_with_parent, give, service_user
from paqett.errors import ConfigurationError

_CONF = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
shared_preload_libraries = 'timescaledb'
timescaledb.telemetry_level = off
max_connections = 100
max_locks_per_transaction = 512
shared_buffers = '{shared_buffers}'
max_wal_size = '4GB'
checkpoint_timeout = '15min'
jit = off
logging_collector = off
# nothing that a statement says may be logged: an error quotes values, its detail keys, its context
# lines of a COPY. Whoever sent the statement is told all of it
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_statement = none
log_min_duration_statement = -1
log_parameter_max_length_on_error = 0
timezone = 'UTC'
"""


_TLS = """
ssl = on
ssl_cert_file = '{certificate}'
ssl_key_file = '{key}'
"""


class Cluster(msgspec.Struct, frozen=True):
    """Where a cluster lives and listens; `password` is its superuser's."""

    folder: Path
    port: int
    password: str
    binaries: Path

    def url(self, database: str = "postgres", role: str = "postgres", password: str = "") -> str:
        """A connection string; the superuser's unless a role and its password are given."""
        return f"postgresql://{role}:{password or self.password}@127.0.0.1:{self.port}/{database}"


def find_binaries() -> Path:
    """The newest PostgreSQL here that has TimescaleDB. Raises `ConfigurationError`."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda p: int(p.parts[-3]),
        reverse=True,
    )
    for initdb in found:
        version = initdb.parts[-3]
        if Path(f"/usr/share/postgresql/{version}/extension/timescaledb.control").exists():
            return initdb.parent
    raise ConfigurationError(
        "no PostgreSQL with TimescaleDB on this machine: run `make setup` as root, or set"
        " PAQETT_DATABASE__URL to a server that has it"
    )


def create(
    folder: Path, port: int, *, shared_buffers: str = "256MB",
    certificate: tuple[Path, Path] | None = None,
) -> Cluster:  # fmt: skip
    """Make the cluster if it is not there yet; `folder` must be reachable for user postgres.

    With a `certificate` and its key, which must be the server's user's, it speaks TLS to those who
    ask for it.
    """
    user = service_user("postgres")
    secret = folder / "superuser"
    binaries = find_binaries()
    if not (folder / "data" / "PG_VERSION").exists():
        folder.mkdir(parents=True, exist_ok=True)
        give(folder, user)
        password = secrets.token_urlsafe(24)
        _write_private(secret, password, user)
        _initdb(binaries, folder, secret, user)
    cluster = Cluster(folder, port, secret.read_text(), binaries)
    conf = folder / "data" / "paqett.conf"
    text = _CONF.format(port=port, shared_buffers=shared_buffers)
    if certificate is not None:
        text += _TLS.format(certificate=certificate[0], key=certificate[1])
    _write_private(conf, text, user)
    return cluster


def _initdb(binaries: Path, folder: Path, secret: Path, user: str | None) -> None:
    command = [
        str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-E", "UTF8",
        "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd="/", capture_output=True, text=True, check=False, preexec_fn=_as(user)
    )
    if done.returncode:
        raise ConfigurationError(f"initdb failed: {done.stderr.strip()[-500:]}")
    with (folder / "data" / "postgresql.conf").open("a") as main:
        main.write("include = 'paqett.conf'\n")


def _as(user: str | None) -> Callable[[], None]:
    return die_with_parent(signal.SIGKILL, user)


def _write_private(path: Path, text: str, user: str | None) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    give(path, user)


def start(cluster: Cluster, log: Path) -> subprocess.Popen[bytes]:
    """Start the server; SIGINT ends it within seconds, and so does our own death."""
    _clear_stale_pid(cluster)
    with log.open("ab") as out:
        return subprocess.Popen(
            [str(cluster.binaries / "postgres"), "-D", str(cluster.folder / "data")],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGINT, service_user("postgres")),
        )


def _clear_stale_pid(cluster: Cluster) -> None:
    """Wait until a server whose supervisor was killed has gone."""
    lock = cluster.folder / "data" / "postmaster.pid"
    for _ in range(100):
        if not lock.exists() or not _is_postgres(lock.read_text().split()[0]):
            return
        time.sleep(0.1)
    raise ConfigurationError(f"another PostgreSQL already runs on {cluster.folder / 'data'}")


def _is_postgres(pid: str) -> bool:
    """The number may long be another program's."""
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def wait_ready(url: str, timeout_s: float = 60.0) -> None:
    """Return once the server answers. Raises `ConfigurationError` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise ConfigurationError(f"the database does not answer: {error}") from None
            time.sleep(0.1)
        else:
            return


def create_database(cluster: Cluster, name: str) -> None:
    """Create `name` unless it exists."""
    with psycopg.connect(cluster.url(), autocommit=True) as conn:
        row = conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if row is None:
            conn.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
