"""The one command, `paqett`. Data goes to standard output, messages to standard error.

Exit codes: 0 done, 1 it went wrong, 2 the command line or the settings are wrong.
"""

import argparse
import asyncio
import getpass
import json
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import uvloop

from paqett import (
    __version__,
    accounts,
    backup_commands,
    db,
    devices,
    doctor,
    jobs,
    keys,
    log,
    migrate,
    moves,
    notices,
    ops,
    oversight,
    passwords,
    privacy_commands,
    roles,
    sessions,
    telemetry_commands,
    tracing,
    usage,
)
from paqett.app import utc_now
from paqett.billing import sync as billing
from paqett.broker import process as broker
from paqett.doctor.others import examine_others
from paqett.doctor.tls import examine_tls
from paqett.erasure import closing
from paqett.errors import ConfigurationError, Conflict, Invalid, NotFound, PaqettError
from paqett.ingest import process as ingest
from paqett.local import agent, fleet, simulate, state, torture, up
from paqett.plans import Plan, load_plans
from paqett.principals import SCOPES
from paqett.settings import Settings, load
from paqett.sqlfiles import query
from paqett.web import server
from paqett.web.listener import check_ops_listener
from paqett.worker import process as worker

_ON_WHAT_RUNS_HERE = ("admin", "device", "doctor", "privacy", "simulate")

Process = Callable[[Settings, asyncio.Event], Awaitable[None]]


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(telemetry_commands.with_times(words))
    try:
        settings = _here(load(), arguments.command)
        log.configure(settings.log.level, settings.log.format, arguments.command)
        return int(arguments.run(settings, arguments) or 0)
    except ConfigurationError as error:
        _say(str(error))
        return 2
    except (PaqettError, psycopg.Error, OSError) as error:
        _say(str(error).strip() or type(error).__name__)
        return 1


def _here(settings: Settings, command: str) -> Settings:
    """What runs here by `paqett up` is meant where no database is named."""
    if settings.database.url or command not in _ON_WHAT_RUNS_HERE:
        return settings
    if not (settings.data_dir / "up.json").exists():
        return settings
    here, change = state.load(settings.data_dir.resolve()), msgspec.structs.replace
    return change(
        settings,
        database=change(settings.database, url=here.database_url),
        mqtt=change(settings.mqtt, port=here.platform_port, password=here.broker_password),
        broker=change(settings.broker, listen_port=here.mqtt_port),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paqett", description="Multi-tenant IoT telemetry.")
    parser.add_argument("--version", action="version", version=f"paqett {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., Any], about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        return command

    add("api", _process("api", _api), "serve HTTP")
    add("ingest", _process("ingest", ingest.run), "write what arrives over MQTT")
    add("worker", _process("worker", worker.run), "work jobs and look after retention")
    add("broker", _process("broker", broker.run), "run Mosquitto on Paqett's configuration")
    add("agent", _process("agent", _agent), "send this machine's own readings")
    add("migrate", _migrate, "bring the database to this program's schema")
    _json_flag(add("doctor", _doctor, "examine this deployment"))
    command = add("up", _up, "run everything on this machine")
    command.add_argument("--lan", action="store_true", help="let boards on the local network in")
    command.add_argument("--demo", action="store_true", help="sell plans, by a fake Stripe")
    command.add_argument("--stop", action="store_true", help="stop what runs here")
    command = add("simulate", _simulate, "a fleet of devices over real MQTT")
    command.add_argument("--devices", type=int, default=50)
    command.add_argument("--rate", type=float, default=1.0, help="messages a second of each device")
    command.add_argument("--seconds", type=float, default=None)
    command.add_argument("--accounts", type=int, default=2)
    command.add_argument("--plan", default="own")
    command.add_argument("--name", default="demo")
    command.add_argument("--ledger", default=None, help="file for every acknowledged reading")
    command.add_argument("--remove", action="store_true", help="remove the fleet and its accounts")
    _torture_flags(add("torture", _torture, "kill what runs here, count what was acknowledged"))
    telemetry_commands.flags(
        add("query", telemetry_commands.query, "show readings of an account, with its API key"),
        add("export", telemetry_commands.export, "write a whole range of readings to a file"),
    )
    _admin(commands.add_parser("admin", help="accounts, keys and plans"))
    _device(commands.add_parser("device", help="an account's devices"))
    _privacy(commands.add_parser("privacy", help="whether the privacy policy is kept"))
    return parser


def _torture_flags(command: argparse.ArgumentParser) -> None:
    usual = torture.Options()
    command.add_argument(
        "--targets",
        default=",".join(usual.targets),
        help=f"some of {','.join(torture.TARGETS)}, or a+b for both at once",
    )
    command.add_argument("--rounds", type=int, default=usual.rounds, help="kills")
    command.add_argument("--devices", type=int, default=usual.devices)
    command.add_argument("--rate", type=float, default=usual.rate, help="as of simulate")
    command.add_argument("--seed", type=int, help="kill in the same order again")
    command.add_argument(
        "--broker-may-lose", action="store_true",
        help="a broker that acknowledges from memory may lose readings when it is killed",
    )  # fmt: skip
    command.add_argument("--keep", action="store_true", help="leave the fleet and its readings")
    _json_flag(command)


def _admin(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    command = commands.add_parser("create-account", help="make an account")
    command.add_argument("email")
    command.add_argument("--plan")
    command.add_argument("--operator", action="store_true", help="may look after the others")
    command.add_argument(
        "--password-stdin", action="store_true",
        help="read the password from standard input; without, the person resets it by mail",
    )  # fmt: skip
    command.set_defaults(run=_with_database(_create_account))
    _json_flag(command)
    for name, run, about in (
        ("set-password", _set_password, "read a new password from standard input; sessions end"),
        ("disable", _disable, "close an account to all but export and deletion; devices cut off"),
        ("enable", _enable, "open it again"),
        ("set-operator", _set_operator, "let its person look after other accounts"),
        ("sessions", _sessions, "where an account is signed in"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("account", help="id or e-mail")
        command.set_defaults(run=_with_database(run))
        _json_flag(command)
        if name == "set-operator":
            command.add_argument("--off", action="store_true", help="no longer")
        if name == "sessions":
            command.add_argument("--end", action="store_true", help="end all of them")
    command = commands.add_parser("create-key", help="make an API key; it is shown once")
    command.add_argument("account", help="id or e-mail")
    command.add_argument("--name", default="made by admin")
    command.add_argument("--scopes", default=",".join(sorted(SCOPES)), help="separated by commas")
    command.set_defaults(run=_with_database(_create_key))
    _json_flag(command)
    command = commands.add_parser("set-plan", help="change an account's plan")
    command.add_argument("account", help="id or e-mail")
    command.add_argument("plan")
    command.set_defaults(run=_with_database(_set_plan))
    _json_flag(command)
    command = commands.add_parser("usage", help="what an account has used of its plan, or all have")
    command.add_argument("account", nargs="?", help="id or e-mail; none: every account")
    command.add_argument("--days", type=int, default=30, help="how many days before today")
    command.set_defaults(run=_with_database(_usage))
    _json_flag(command)
    command = commands.add_parser("jobs", help="jobs that failed, wait for another try, or run")
    command.set_defaults(run=_with_database(_list_jobs))
    _json_flag(command)
    command = commands.add_parser("retry-job", help="try a failed job again")
    command.add_argument("job", type=int, help="its number in `paqett admin jobs`")
    command.set_defaults(run=_with_database(_retry_job))
    _json_flag(command)
    command = commands.add_parser("retention", help="each tier's policy and its oldest reading")
    command.set_defaults(run=_with_database(_retention))
    _json_flag(command)
    command = commands.add_parser(
        "top", help="the devices that send the most, or what fills the disk"
    )
    command.add_argument("--tables", action="store_true", help="tables instead of devices")
    command.add_argument("--days", type=_positive, default=7, help="of devices: how far back")
    command.add_argument("--limit", type=_positive, default=20)
    command.set_defaults(run=_with_database(_top))
    _json_flag(command)
    command = commands.add_parser(
        "erase", help="delete an account as its person would: in 7 days, with all that is its"
    )
    command.add_argument("account", help="id or e-mail")
    command.add_argument("--now", action="store_true", help="at once, and nothing undoes it")
    command.set_defaults(run=_with_database(_erase))
    _json_flag(command)
    for command in backup_commands.flags(commands):
        command.set_defaults(run=_on_its_own(command.get_default("run")))
        _json_flag(command)
    command = commands.add_parser("list", help="all accounts")
    command.set_defaults(run=_with_database(_list_accounts))
    _json_flag(command)


def _device(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, run, about in (
        ("list", _device_list, "an account's devices"),
        ("create", _device_create, "make a device; its secret is shown once"),
        ("rotate", _device_rotate, "give a device a new secret; the old one is cut off"),
        ("watch", _device_watch, "print readings as they are stored"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("--account", required=True, help="id or e-mail")
        command.set_defaults(run=_with_database(run))
        _json_flag(command)
        if name == "create":
            command.add_argument("thing_name")
        elif name != "list":
            command.add_argument("device")


def _privacy(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    about = "hold what is really kept to the register and its periods; for operators and auditors"
    command = commands.add_parser("check", help=about, description=about)
    command.set_defaults(run=privacy_commands.check)
    _json_flag(command)


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:
        raise ValueError
    return number


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _say(text: str) -> None:
    print(f"paqett: {text}", file=sys.stderr)  # noqa: T201 - the command's own voice


def _show(data: Any, arguments: argparse.Namespace) -> None:
    """JSON where asked for, else `key  value` lines."""
    plain = msgspec.to_builtins(data)
    if arguments.json:
        print(json.dumps(plain))  # noqa: T201
        return
    for row in plain if isinstance(plain, list) else [plain]:
        print("  ".join(f"{key}={value}" for key, value in row.items()))  # noqa: T201


def _process(name: str, run: Process) -> Callable[[Settings, argparse.Namespace], int]:
    def start(settings: Settings, _: argparse.Namespace) -> int:
        check_ops_listener(settings)
        tracing.configure(on=settings.ops.tracing)
        if settings.ops.port and name != "api":
            ops.listen(settings.ops.host, settings.ops.port)
        uvloop.run(_until_signal(run, settings))
        return 0

    return start


async def _until_signal(run: Process, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    beating = asyncio.create_task(ops.health.keep_beating())
    try:
        await run(settings, stop)
    finally:
        beating.cancel()


async def _api(settings: Settings, stop: asyncio.Event) -> None:
    from paqett.app import services, wait_for_database  # noqa: PLC0415 - only this process

    await wait_for_database(settings, stop)
    if not stop.is_set():
        async with services(settings, "api") as opened:
            await server.serve(opened, stop)


async def _agent(settings: Settings, stop: asyncio.Event) -> None:
    own = settings.agent
    if not own.device_id or not own.secret:
        raise ConfigurationError("PAQETT_AGENT__DEVICE_ID and PAQETT_AGENT__SECRET are not set")
    ops.health.note("agent", "ok", "sends this machine's readings")
    await agent.run(
        own.host, own.port, own.device_id, own.secret, stop, own.interval_s, tls=own.tls
    )


def _up(settings: Settings, arguments: argparse.Namespace) -> int:
    if arguments.stop:
        _say("stopped" if up.stop_running(settings) else "nothing runs here")
        return 0

    async def run(settings: Settings, stop: asyncio.Event) -> None:
        await up.run(settings, stop, lan=arguments.lan, demo=arguments.demo)

    asyncio.run(_until_signal(run, settings))
    return 0


def _migrate(settings: Settings, _: argparse.Namespace) -> int:
    async def run() -> list[str]:
        async with await db.connect(settings.database, "migrate", autocommit=True) as conn:
            applied = await migrate.migrate(conn, migrate.Patience.of(settings.database))
            await roles.set_passwords(conn, _role_passwords(settings))
            return applied

    applied = asyncio.run(run())
    _say(f"applied {', '.join(applied)}" if applied else "the schema is current")
    return 0


def _role_passwords(settings: Settings) -> dict[str, str]:
    named = msgspec.structs.asdict(settings.roles)
    return {name.removesuffix("_password"): password for name, password in named.items()}


def _doctor(settings: Settings, arguments: argparse.Namespace) -> int:
    findings = asyncio.run(_examined(settings))
    _show(findings, arguments)
    return int(any(finding.state == "failed" for finding in findings))


async def _examined(settings: Settings) -> list[doctor.Finding]:
    found = [*doctor.examine_machine(settings), *examine_tls(settings, utc_now())]
    try:
        async with await db.connect(settings.database, "doctor") as conn:
            found += await doctor.examine_server(conn, utc_now())
            found += await doctor.examine(conn, utc_now())
    except (psycopg.OperationalError, OSError) as error:
        mend = "start it, or set PAQETT_DATABASE__URL"
        found.append(doctor.Finding("database", "failed", str(error).strip(), mend))
    plans = load_plans(settings.plans_file).values()
    return found + await examine_others(settings, plans, utc_now)


def _simulate(settings: Settings, arguments: argparse.Namespace) -> int:
    async def run(settings: Settings, stop: asyncio.Event) -> None:
        plan = _plan(settings, arguments.plan)
        async with await db.connect(settings.database, "simulate") as conn:
            if arguments.remove:
                await fleet.remove(conn, arguments.name)
                return
            devices_made = await fleet.create(
                conn, arguments.name, arguments.devices, arguments.accounts, plan
            )
        ledger = await simulate.run(
            devices_made, settings.agent.host, settings.agent.port, arguments.rate, stop,
            arguments.seconds, ledger_file=arguments.ledger,
        )  # fmt: skip
        _say(f"published {ledger.published}, acknowledged {ledger.acknowledged}")

    asyncio.run(_until_signal(run, settings))
    return 0


def _torture(settings: Settings, arguments: argparse.Namespace) -> int:
    options = torture.Options(
        targets=tuple(arguments.targets.split(",")), rounds=arguments.rounds,
        devices=arguments.devices, rate=arguments.rate, seed=arguments.seed,
        broker_may_lose=arguments.broker_may_lose, keep=arguments.keep,
    )  # fmt: skip
    reports: list[torture.Report] = []

    async def run(settings: Settings, stop: asyncio.Event) -> None:
        plan = _plan(settings, "own")
        reports.append(await torture.run(settings, plan, options, stop, _say))

    asyncio.run(_until_signal(run, settings))
    report = reports[0]
    print(  # noqa: T201 - what the command is for
        msgspec.json.encode(report).decode() if arguments.json else torture.table(report)
    )
    return 0 if report.passed else 1


def _plan(settings: Settings, name: str) -> Plan:
    plans = load_plans(settings.plans_file)
    if name not in plans:
        raise ConfigurationError(f"no plan {name}; there are {', '.join(plans)}")
    return plans[name]


Action = Callable[[db.Connection, Settings, argparse.Namespace], Awaitable[Any]]


def _with_database(action: Action) -> Callable[[Settings, argparse.Namespace], int]:
    def start(settings: Settings, arguments: argparse.Namespace) -> int:
        async def run() -> Any:
            async with await db.connect(settings.database, "admin") as conn:
                await _note_access(conn, arguments)
                return await action(conn, settings, arguments)

        shown = asyncio.run(run())
        if shown is not None:
            _show(shown, arguments)
        return 0

    return start


async def _note_access(conn: db.Connection, arguments: argparse.Namespace) -> None:
    """What an operator looks at or changes, the account can see that they did."""
    if getattr(arguments, "account", None) is None:
        return
    account = await accounts.find(conn, arguments.account)
    what = f"paqett {arguments.command} {arguments.action}"
    by = f"{getpass.getuser()} on the command line"
    await notices.notify(conn, account.id, "operator_access", what=what, by=by)


async def _create_account(
    conn: db.Connection, settings: Settings, arguments: argparse.Namespace
) -> Any:
    plan = _plan(settings, arguments.plan or settings.default_plan)
    if not re.fullmatch(accounts.EMAIL, arguments.email):
        raise Invalid(f"{arguments.email} is no e-mail address.")
    account = await accounts.create(conn, arguments.email, plan)
    if arguments.operator:
        await accounts.set_operator(conn, account.id, operator=True)
    if arguments.password_stdin:
        hashed = await _password_from_stdin(settings, account.email)
        await accounts.set_password(conn, account.id, hashed)
    return account


async def _password_from_stdin(settings: Settings, email: str) -> str:
    typed = sys.stdin.isatty()
    password = getpass.getpass() if typed else sys.stdin.readline().rstrip("\r\n")
    if typed and getpass.getpass("Again: ") != password:
        raise Invalid("The two are not the same.")
    passwords.check(password, email)
    hasher = passwords.Hasher(settings.auth)
    try:
        return await hasher.hash(password)
    finally:
        hasher.close()


async def _set_password(
    conn: db.Connection, settings: Settings, arguments: argparse.Namespace
) -> None:
    account = await accounts.find(conn, arguments.account)
    hashed = await _password_from_stdin(settings, account.email)
    await accounts.set_password(conn, account.id, hashed)
    await sessions.end_all(conn, account.id, datetime.now(UTC))
    await notices.notify(conn, account.id, "password_changed")
    _say(f"the password of {account.email} is set; its sessions have ended")


async def _disable(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> None:
    account = await accounts.find(conn, arguments.account)
    await accounts.set_disabled(conn, account.id, datetime.now(UTC))
    await notices.notify(conn, account.id, "account_disabled")
    _say(f"{account.email} is disabled")


async def _enable(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> None:
    account = await accounts.find(conn, arguments.account)
    await accounts.set_disabled(conn, account.id, None)
    await notices.notify(conn, account.id, "account_enabled")
    _say(f"{account.email} is enabled")


async def _set_operator(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> None:
    account = await accounts.find(conn, arguments.account)
    await accounts.set_operator(conn, account.id, operator=not arguments.off)
    _say(f"{account.email} is {'no longer ' if arguments.off else ''}an operator")


async def _sessions(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> Any:
    account = await accounts.find(conn, arguments.account)
    if arguments.end:
        await sessions.end_all(conn, account.id, datetime.now(UTC))
    return await sessions.list_sessions(conn, account.id, None)


async def _create_key(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> Any:
    account = await accounts.find(conn, arguments.account)
    scopes = [scope.strip() for scope in arguments.scopes.split(",")]
    return await keys.create(conn, account.id, arguments.name, scopes, None, None)


async def _set_plan(conn: db.Connection, settings: Settings, arguments: argparse.Namespace) -> Any:
    account = await accounts.find(conn, arguments.account)
    plan = _plan(settings, arguments.plan)
    bought = await billing.known(conn, account.id)
    if settings.stripe.secret_key and bought is not None and bought.granted is not None:
        raise Conflict(
            f"{account.email} pays for the plan {bought.granted}, and Stripe decides it: end the"
            " subscription there first"
        )
    due = await moves.set_plan(conn, account.id, plan, datetime.now(UTC))
    return {"account": account.id, "plan": plan.name, "tier_changes_at": due}


async def _usage(conn: db.Connection, settings: Settings, arguments: argparse.Namespace) -> Any:
    if arguments.account is None:
        since = datetime.now(UTC).date() - timedelta(days=arguments.days)
        return await oversight.usage(conn, since)
    account = await accounts.find(conn, arguments.account)
    plan = _plan(settings, account.plan)
    return await usage.today(conn, account, plan, datetime.now(UTC), arguments.days)


async def _retention(conn: db.Connection, _: Settings, __: argparse.Namespace) -> Any:
    return await oversight.retention(conn)


async def _top(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> Any:
    if arguments.tables:
        return await oversight.largest_tables(conn, arguments.limit)
    return await oversight.largest_devices(conn, arguments.days, arguments.limit)


async def _erase(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> Any:
    account = await accounts.find(conn, arguments.account)
    return await closing.ask(conn, account.id, "operator", datetime.now(UTC), at_once=arguments.now)


def _on_its_own(
    action: Callable[[Settings, argparse.Namespace], Awaitable[Any]],
) -> Callable[[Settings, argparse.Namespace], int]:
    """An action that opens what it needs itself."""

    async def run(settings: Settings, arguments: argparse.Namespace) -> None:
        _show(await action(settings, arguments), arguments)

    def start(settings: Settings, arguments: argparse.Namespace) -> int:
        asyncio.run(run(settings, arguments))
        return 0

    return start


async def _list_accounts(conn: db.Connection, _: Settings, __: argparse.Namespace) -> Any:
    return await accounts.list_all(conn)


async def _list_jobs(conn: db.Connection, _: Settings, __: argparse.Namespace) -> Any:
    return await jobs.list_unfinished(conn)


async def _retry_job(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> None:
    await jobs.retry(conn, arguments.job)
    _say(f"job {arguments.job} is tried again")


async def _device_list(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> Any:
    account = await accounts.find(conn, arguments.account)
    return (await devices.list_devices(conn, account, limit=1000)).items


async def _device_create(
    conn: db.Connection, settings: Settings, arguments: argparse.Namespace
) -> Any:
    account = await accounts.find(conn, arguments.account)
    plan = _plan(settings, account.plan)
    return await devices.create(conn, account, plan, thing_name=arguments.thing_name)


async def _device_rotate(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> Any:
    account = await accounts.find(conn, arguments.account)
    return {"secret": await devices.rotate_secret(conn, account, arguments.device)}


async def _device_watch(conn: db.Connection, _: Settings, arguments: argparse.Namespace) -> None:
    from paqett.readings import read  # noqa: PLC0415 - only this action

    account = await accounts.find(conn, arguments.account)
    seen: dict[tuple[str, str], Any] = {}
    while True:
        now = datetime.now(UTC)
        rows = await read.latest(conn, account, [arguments.device], now)
        if not rows and not await _exists(conn, account.id, arguments.device):
            raise NotFound(f"There is no device {arguments.device}.")
        for row in rows:
            if seen.get((row.device, row.metric)) != row.time:
                seen[row.device, row.metric] = row.time
                _show(row, arguments)
        await conn.commit()
        await asyncio.sleep(0.5)


async def _exists(conn: db.Connection, account_id: int, device_id: str) -> bool:
    found = await conn.execute(query("get_device"), {"account": account_id, "id": device_id})
    return await found.fetchone() is not None
