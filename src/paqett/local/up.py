"""`paqett up`: database, broker, api, ingest, worker and agent on this machine, kept alive."""

import asyncio
import fcntl
import os
import secrets
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import msgspec
import psutil

from paqett import accounts, db, devices, keys, migrate, register, roles
from paqett.app import utc_now
from paqett.children import LOOPBACK, free_port
from paqett.errors import ConfigurationError
from paqett.local import demo as fake
from paqett.local import logs as log_files
from paqett.local import mail_watch, postgres, state, welcome
from paqett.local.state import State
from paqett.local.supervisor import Program, Supervisor, command
from paqett.passwords import hash_once
from paqett.plans import load_plans
from paqett.principals import SCOPES
from paqett.settings import Settings

STOP_ORDER = ("agent", "api", "ingest", "worker", "stripe", "broker", "database")
_DATABASE = "paqett"
_DATABASE_PORT = 54320
_OPS_PORT = 9480
_LAN = {
    "PAQETT_BROKER__LISTEN_HOST": "0.0.0.0",  # noqa: S104 - asked for by --lan
    "PAQETT_BROKER__ALLOW_PLAIN": "true",
}


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the command's own voice


async def run(
    settings: Settings, stop: asyncio.Event, *, lan: bool = False, demo: bool = False
) -> None:
    """Bring everything up, print what a newcomer needs, and supervise until `stop`.

    Raises `ConfigurationError` where something on the machine is missing or already running.
    """
    began = time.monotonic()
    folder = state.open_folder(settings.data_dir)
    with _only_one(folder):
        current = state.load(folder)
        first = current.account_id == 0
        _wait_for_leftovers(current)
        _choose_ports(settings, current)
        logs = folder / "log"
        logs.mkdir(exist_ok=True)

        def note(pids: dict[str, int]) -> None:
            current.pids = {"supervisor": os.getpid(), **pids}
            state.save(folder, current)

        supervisor = Supervisor(note)
        try:
            await _start(settings, current, folder, supervisor, lan=lan, demo=demo)
            say(f"ready in {time.monotonic() - began:.1f} s")
            mail = "" if settings.mail.smtp_host else str(settings.data_dir / "mail")
            welcome.show(current, settings.data_dir, first=first, lan=lan, mail=mail, demo=demo)
            await asyncio.gather(
                supervisor.watch(stop),
                mail_watch.watch(folder / "mail", stop, say),
                log_files.watch(logs, register.load().period("logs"), stop, utc_now),
            )
        finally:
            say("stopping")
            supervisor.stop(STOP_ORDER)
            current.pids = {}
            state.save(folder, current)


async def _start(
    settings: Settings, current: State, folder: Path, supervisor: Supervisor, *,
    lan: bool, demo: bool,
) -> None:  # fmt: skip
    """Everything, in the order in which one needs the other; the API answers afterwards."""
    urls = await _database(settings, current, folder, supervisor)
    loopback = settings.http.host in LOOPBACK
    sells = {}
    if demo:
        supervisor.add(fake.stripe(settings, current, folder))
        sells = fake.environ(current)
    _processes(current, folder, supervisor, urls, sells, lan=lan, loopback=loopback)
    await _first_account(settings, current, urls["owner"])
    supervisor.add(_agent(current, folder / "log"))
    _wait_answer(f"{current.api_url}/readyz", folder / "log")
    state.save(folder, current)


class _only_one:  # noqa: N801 - reads as a statement
    """Hold the folder's lock; a second `paqett up` is told about the first."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "up.lock").open("w")

    def __enter__(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                "Paqett is already up here; `make down` stops it, .paqett/up.json tells where it is"
            ) from None

    def __exit__(self, *_: object) -> None:
        self._file.close()


def stop_running(settings: Settings) -> bool:
    """Ask a running `paqett up` to stop and wait for it; false where none runs."""
    folder = settings.data_dir
    if not (folder / "up.json").exists():
        return False
    pid = state.load(folder.resolve()).pids.get("supervisor")
    if pid is None or not psutil.pid_exists(pid):
        return False
    process = psutil.Process(pid)
    process.send_signal(signal.SIGTERM)
    psutil.wait_procs([process], timeout=60)
    return True


def _wait_for_leftovers(current: State) -> None:
    """After a killed supervisor its children are ending by themselves: give them the time."""
    left = []
    for pid in current.pids.values():
        try:
            process = psutil.Process(pid)
            if {"paqett", "postgres"} & set(" ".join(process.cmdline()).replace("/", " ").split()):
                left.append(process)
        except psutil.Error:
            continue
    left = [process for process in left if process.pid != os.getpid()]
    _, alive = psutil.wait_procs(left, timeout=20)
    for process in alive:
        process.kill()


def _choose_ports(settings: Settings, current: State) -> None:
    """The ports of last time, or the settings', or the next free ones."""
    taken: list[int] = []

    def choose(last: int, wanted: int) -> int:
        taken.append(free_port(last or wanted, taken=tuple(taken)))
        return taken[-1]

    last_api = urlsplit(current.api_url).port or 0
    current.mqtt_port = choose(current.mqtt_port, settings.broker.listen_port)
    current.platform_port = choose(current.platform_port, settings.mqtt.port)
    current.api_url = f"http://127.0.0.1:{choose(last_api, settings.http.port)}"
    if not settings.database.url:
        current.database_port = choose(current.database_port, _DATABASE_PORT)


async def _database(
    settings: Settings, current: State, folder: Path, supervisor: Supervisor
) -> dict[str, str]:
    """A migrated database and each role's address of it."""
    if settings.database.url:
        await _migrate(settings.database.url, settings)
        current.database_url = settings.database.url
        return dict.fromkeys(("owner", "api", "ingest", "worker"), settings.database.url)
    say("database: starting PostgreSQL with TimescaleDB")
    cluster = postgres.create(folder / "postgres", current.database_port)
    log_file = folder / "log" / "database.log"
    supervisor.add(Program("database", lambda: postgres.start(cluster, log_file), signal.SIGINT))
    postgres.wait_ready(cluster.url())
    postgres.create_database(cluster, _DATABASE)
    await _migrate(cluster.url(_DATABASE), settings, current.role_passwords)
    urls = {
        role: cluster.url(_DATABASE, f"{_DATABASE}_{role}", password)
        for role, password in current.role_passwords.items()
    }
    current.database_url = urls["owner"]
    return urls


async def _migrate(
    url: str, settings: Settings, passwords: Mapping[str, str] = MappingProxyType({})
) -> None:
    conn = await db.connect(_with_url(settings, url).database, "migrate", autocommit=True)
    async with conn:
        for name in await migrate.migrate(conn):
            say(f"database: applied {name}")
        await roles.set_passwords(conn, passwords)


def _with_url(settings: Settings, url: str) -> Settings:
    database = msgspec.structs.replace(settings.database, url=url)
    return msgspec.structs.replace(settings, database=database)


def _processes(
    current: State, folder: Path, supervisor: Supervisor, urls: dict[str, str],
    sells: dict[str, str], *, lan: bool, loopback: bool,
) -> None:  # fmt: skip
    api_port = str(urlsplit(current.api_url).port)
    shared = {
        "PAQETT_PAQETT__DATA_DIR": str(folder),
        "PAQETT_MQTT__PORT": str(current.platform_port),
        # the worker too: the links in its mails lead to the API
        "PAQETT_HTTP__PORT": api_port,
    }
    platform = {"PAQETT_MQTT__PASSWORD": current.broker_password}
    own = {
        "broker": {
            **platform,
            "PAQETT_DATABASE__URL": urls["worker"],
            "PAQETT_BROKER__LISTEN_PORT": str(current.mqtt_port),
            **(_LAN if lan else {}),
        },
        "api": {
            "PAQETT_DATABASE__URL": urls["api"],
            **sells,
            # what it tells people of how their devices reach the broker
            "PAQETT_BROKER__LISTEN_PORT": str(current.mqtt_port),
            # where the API listens on loopback alone, its metrics may stand beside it
            "PAQETT_OPS__OPEN_ON_API": str(loopback).lower(),
        },
        "ingest": {"PAQETT_DATABASE__URL": urls["ingest"], **platform},
        "worker": {"PAQETT_DATABASE__URL": urls["worker"], **platform, **_asks(sells)},
    }
    port = _OPS_PORT
    for name, environ in own.items():
        port = free_port(port + 1)
        environ["PAQETT_OPS__PORT"] = str(port)
        say(f"{name}: starting")
        argv = [sys.executable, "-m", "paqett", name]
        supervisor.add(
            Program(name, command(argv, {**shared, **environ}, folder / "log" / f"{name}.log"))
        )


def _asks(sells: dict[str, str]) -> dict[str, str]:
    """For the worker, which calls Stripe and is not called by it."""
    return {name: text for name, text in sells.items() if "WEBHOOK" not in name}


def _agent(current: State, logs: Path) -> Program:
    environ = {
        "PAQETT_AGENT__PORT": str(current.mqtt_port),
        "PAQETT_AGENT__DEVICE_ID": current.device_id,
        "PAQETT_AGENT__SECRET": current.device_secret,
    }
    argv = [sys.executable, "-m", "paqett", "agent"]
    return Program("agent", command(argv, environ, logs / "agent.log"))


async def _first_account(settings: Settings, current: State, owner_url: str) -> None:
    """An account, a key and two devices, once; an upgrade of the state file keeps them."""
    conn = await db.connect(_with_url(settings, owner_url).database, "up")
    async with conn:
        if not current.account_id:
            await _make_account(conn, settings, current)
        if not current.account_password:
            password = secrets.token_urlsafe(12)
            hashed = await hash_once(settings.auth, password)
            await accounts.set_password(conn, current.account_id, hashed)
            await accounts.set_operator(conn, current.account_id, operator=True)
            current.account_password = password


async def _make_account(conn: db.Connection, settings: Settings, current: State) -> None:
    plan = load_plans(settings.plans_file)[settings.default_plan]
    account = await accounts.create(conn, "me@localhost", plan)
    key = await keys.create(conn, account.id, "made by paqett up", sorted(SCOPES), None, None)
    mine = await devices.create(
        conn, account, plan, thing_name=socket.gethostname()[:64] or "this-machine"
    )
    spare = await devices.create(conn, account, plan, thing_name="spare")
    current.account_id, current.api_key = account.id, key.key
    current.device_id, current.device_secret = mine.id, mine.secret
    current.spare_device_id, current.spare_device_secret = spare.id, spare.secret


def _wait_answer(url: str, logs: Path, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own loopback address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise ConfigurationError(f"{url} does not answer ({error}); see {logs}") from None
        time.sleep(0.1)
