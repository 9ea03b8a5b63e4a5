"""The processes under measurement: PostgreSQL, `paqett broker` and `paqett ingest`.

They are used from outside alone, through settings, sockets and SQL. A stand is made for each part
and leaves nothing behind: children die with the suite, and the folder goes whatever happens.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import psycopg

from paqett import db, migrate
from paqett.children import die_with_parent, free_port, give, service_user
from paqett.local import fleet, postgres
from paqett.local.packets import Refused, open_connection, publish_packet
from paqett.plans import load_plans
from paqett.settings import load

BENCHMARKS = Path(__file__).parents[1]
PLANS = BENCHMARKS / "plans.toml"
ACCOUNTS = 200
TABLE = "telemetry_own"
WRITER, WRITER_PASSWORD = "paqett.ingest", "writer"
READY_METRIC = "stand_ready"
_CA = "ca.pem"


class BenchmarkError(Exception):
    """A run that cannot be trusted; says why."""


class Stand:
    """A database, a broker, an ingest process and a fleet; API processes where asked for."""

    def __init__(
        self, folder: Path, ports: dict[str, int], cluster: postgres.Cluster,
        server: subprocess.Popen[bytes], *, tls: bool, database: str = "bench",
    ) -> None:  # fmt: skip
        self.folder = folder
        self.ports = ports
        self.cluster = cluster
        self._base = cluster.url(database)
        self.url = self.url_of(database)
        self._tls = tls
        self.server = server
        self.devices: list[fleet.SimDevice] = []
        self.conn = psycopg.connect(self.url, autocommit=True, application_name="benchmark")
        self.ca_file = folder / _CA
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def url_of(self, database: str) -> str:
        """For the suite's own connections."""
        return f"{self.cluster.url(database)}?sslmode=disable"

    @property
    def environ(self) -> dict[str, str]:
        """The settings of both processes."""
        return {
            **(self._with_tls() if self._tls else {}),
            "PAQETT_DATABASE__URL": self._verified if self._tls else self._base,
            "PAQETT_PAQETT__DATA_DIR": str(self.folder),
            "PAQETT_PAQETT__PLANS_FILE": str(PLANS),
            "PAQETT_LOG__LEVEL": "warning",
            "PAQETT_MQTT__PORT": str(self.ports["platform"]),
            "PAQETT_MQTT__USERNAME": WRITER,
            "PAQETT_MQTT__PASSWORD": WRITER_PASSWORD,
            "PAQETT_BROKER__LISTEN_PORT": str(self.ports["plain"]),
            "PAQETT_BROKER__TLS_PORT": str(self.ports["tls"]),
            "PAQETT_BROKER__TLS_CERT_FILE": str(self.folder / "server.pem"),
            "PAQETT_BROKER__TLS_KEY_FILE": str(self.folder / "server.key"),
        }

    def _with_tls(self) -> dict[str, str]:
        return {
            "PAQETT_MQTT__TLS": "true",
            "PAQETT_MQTT__TLS_CA_FILE": str(self.ca_file),
        }

    @property
    def _verified(self) -> str:
        return f"{self._base}?sslmode=verify-full&sslrootcert={self.ca_file}"

    @property
    def metrics_url(self) -> str:
        """Where ingest's own figures are."""
        return f"http://127.0.0.1:{self.ports['ops']}/metrics"

    def connect(self) -> psycopg.Connection:
        """One more connection, for a thread of its own."""
        return psycopg.connect(self.url, autocommit=True, application_name="benchmark")

    def prepare(self, devices: int) -> None:
        """Schema and fleet."""

        async def work() -> None:
            settings = load(self.environ)
            plan = load_plans(PLANS)["bench"]
            async with await db.connect(settings.database, "bench", autocommit=True) as conn:
                await migrate.migrate(conn)
                self.devices = await fleet.create(conn, "bench", devices, ACCOUNTS, plan)

        asyncio.run(work())

    def start(self) -> None:
        """Start broker and ingest and wait until a reading has gone all the way."""
        self.conn.execute(f"TRUNCATE {TABLE}")  # a cluster that is kept has the last run's
        self._spawn("broker", {})
        self.start_ingest()
        deadline = time.monotonic() + 60
        while not self._reading_arrives():
            if time.monotonic() > deadline:
                raise BenchmarkError(f"no reading arrives\n{self.log_tail()}")

    def _spawn(self, command: str, more: dict[str, str], name: str | None = None) -> None:
        name = name or command
        with (self.folder / f"{name}.log").open("ab") as out:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", "paqett", command],
                env={**os.environ, **self.environ, **more}, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )  # fmt: skip

    def start_api(self, database: str) -> int:
        """Start an API process on a database of the cluster; its port."""
        name = f"api-{database}"
        port = self.ports[name] = free_port(31_000, taken=tuple(self.ports.values()))
        more = {"PAQETT_DATABASE__URL": self.cluster.url(database), "PAQETT_HTTP__PORT": str(port)}
        self._spawn("api", more, name)
        deadline = time.monotonic() + 60
        while not _answers(f"http://127.0.0.1:{port}/readyz"):
            if self._children[name].poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"{name} does not answer\n{self.log_tail()}")
            time.sleep(0.2)
        return port

    def start_worker(self) -> int:
        """Start a worker and wait until it has looked for jobs; its process id."""
        self._spawn("worker", {})
        deadline = time.monotonic() + 60
        while not self.conn.execute("SELECT 1 FROM procrastinate_workers").fetchone():
            if self._children["worker"].poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"the worker does not run\n{self.log_tail()}")
            time.sleep(0.2)
        time.sleep(1)  # its first round of upkeep
        return self.pid("worker")

    def _reading_arrives(self) -> bool:
        """Send one; a broker nobody listens to drops it, so this is tried again and again."""
        for name, child in self._children.items():
            if child.poll() is not None:
                raise BenchmarkError(f"{name} ended\n{self.log_tail()}")
        device = self.devices[0]
        body = b'{"%s":1}' % READY_METRIC.encode()
        packet = publish_packet(f"paqett/v1/{device.id}/telemetry", body, 1, 1)
        with suppress(OSError, Refused):
            conn = open_connection(self.ports["plain"], device.id, device.secret)
            with conn:
                conn.sendall(packet)
                conn.recv(4)
                conn.sendall(b"\xe0\x00")
        time.sleep(0.3)
        return self.count_rows() > 0

    def pid(self, name: str) -> int:
        """The process `broker`, `ingest`, `worker` or `api-<database>`."""
        return self._children[name].pid

    @property
    def running(self) -> list[str]:
        """The processes that were started and not ended, by name."""
        return list(self._children)

    def mosquitto(self) -> psutil.Process:
        """The broker's child."""
        return psutil.Process(self.pid("broker")).children()[0]

    def backends_of_ingest(self) -> list[int]:
        """Process ids of the connections ingest holds."""
        rows = self.conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'paqett ingest%'"
        )
        return [row[0] for row in rows]

    def require_tls(self) -> None:
        """Raises `BenchmarkError` where a connection of ingest's to the database is plain."""
        rows = self.conn.execute(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE application_name LIKE 'paqett ingest%'"
        ).fetchall()
        if not rows or not all(row[0] for row in rows):
            raise BenchmarkError(f"ingest's connections to the database: {rows}")

    def count_rows(self, without: Sequence[str] = ()) -> int:
        """Rows in the tier's hypertable, those of some devices left out."""
        text = f"SELECT count(*) FROM {TABLE}"
        if without:
            text += " WHERE series_id NOT IN (SELECT id FROM series WHERE device_id = ANY(%s))"
        row = self.conn.execute(text, (list(without),) if without else None).fetchone()
        return int(row[0]) if row else 0

    def committed_messages(self, without: Sequence[str] = ()) -> int:
        """Messages committed so far, duplicates too: counted in the readings' own transaction."""
        row = self.conn.execute(
            "SELECT coalesce(sum(messages), 0) FROM usage_hour WHERE device_id <> ALL(%s)",
            (list(without),),
        ).fetchone()
        return int(row[0]) if row else 0

    def create_series(self, metrics: list[str]) -> None:
        """Give every device these metrics."""
        self.conn.execute(
            "INSERT INTO series (account_id, device_id, metric, kind)"
            " SELECT account_id, id, metric, 'number' FROM device, unnest(%s::text[]) metric",
            (metrics,),
        )
        self.conn.execute("VACUUM ANALYZE series")

    def clear(self) -> None:
        """Leave one reading of each series, two minutes old: the chunk is there, the index warm."""
        self.conn.execute(f"TRUNCATE {TABLE}")
        self.conn.execute(
            f"INSERT INTO {TABLE} (time, account_id, series_id, value)"
            " SELECT now() - interval '2 minutes', account_id, id, 0 FROM series ORDER BY id"
        )
        self.conn.execute("VACUUM usage_hour")
        self.conn.execute("CHECKPOINT")

    def log_tail(self) -> str:
        """The last lines of every log."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def end(self, name: str) -> None:
        """Stop one of the processes in order."""
        end(self._children.pop(name), signal.SIGTERM)

    def kill(self, name: str) -> None:
        """SIGKILL to one of the processes."""
        end(self._children.pop(name), signal.SIGKILL)

    def start_ingest(self) -> None:
        """Start ingest; it is not waited for."""
        self._spawn("ingest", {"PAQETT_OPS__PORT": str(self.ports["ops"])})

    def stop(self) -> None:
        """Stop the processes in the order APIs, ingest, broker; kill what does not end."""
        self.conn.close()
        for name in sorted(self._children, key=_ending):
            end(self._children[name], signal.SIGTERM)


def _ending(name: str) -> int:
    """When a process is ended: the broker last."""
    return ("ingest", "broker").index(name) if name in ("ingest", "broker") else -1


def _answers(url: str) -> bool:
    with suppress(OSError), urlopen(url, timeout=5):
        return True
    return False


def _ports() -> dict[str, int]:
    """Free ports, somewhere below those of outgoing connections: others may run a stand too."""
    found: dict[str, int] = {}
    first = random.randrange(20_000, 30_000, 10)
    for name in ("plain", "tls", "platform", "ops", "postgres"):
        found[name] = free_port(first, taken=tuple(found.values()))
    return found


def end(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send the signal, and SIGKILL where the process goes on for 30 s."""
    child.send_signal(number)
    try:
        child.wait(30)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _make_certificates(folder: Path) -> None:
    """A certificate authority and a certificate for this host, for as long as the stand lives."""

    def openssl(*arguments: str) -> None:
        command = ["openssl", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkError(f"openssl: {done.stderr.strip()[-500:]}")

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("req", "-x509", *key, "-subj", "/CN=benchmark", "-keyout", "ca.key", "-out", _CA)
    openssl("req", *key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    openssl(
        "x509", "-req", "-in", "server.csr", "-CA", _CA, "-CAkey", "ca.key",
        "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "server.pem",
    )  # fmt: skip
    shutil.copy(folder / "server.key", folder / "database.key")
    for name, user in (("server.key", "mosquitto"), ("database.key", "postgres")):
        (folder / name).chmod(0o600)
        give(folder / name, service_user(user))


@contextmanager
def stand(
    devices: int = 1000, *, tls: bool = False, home: Path | None = None, database: str = "bench"
) -> Iterator[Stand]:
    """A stand with its fleet made and its processes not started yet.

    With `tls` ingest reaches broker and database over it too, each verified against an authority
    made for the run. The cluster is made for the run as well, or stays in `home` for the next.
    """
    with ExitStack() as cleaning:
        folder = Path(tempfile.mkdtemp(prefix="paqett-bench-", dir="/var/tmp"))
        cleaning.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        ports = _ports()
        _make_certificates(folder)
        cluster = postgres.create(
            home or folder / "postgres", ports["postgres"], shared_buffers="2GB",
            certificate=(folder / "server.pem", folder / "database.key") if tls else None,
        )  # fmt: skip
        server = postgres.start(cluster, folder / "postgres.log")
        cleaning.callback(end, server, signal.SIGINT)
        postgres.wait_ready(cluster.url())
        postgres.create_database(cluster, database)
        made = Stand(folder, ports, cluster, server, tls=tls, database=database)
        cleaning.callback(made.stop)
        made.prepare(devices)
        yield made
