"""The processes: `paqett api`, `ingest`, `worker`, `broker` and `agent`.

Each imports what it runs when it runs: no process carries the others' code in its memory.
"""

import argparse
import asyncio
from pathlib import Path

import uvloop

from paqett import ops, tracing
from paqett.cli.commands import Commands, Run, arg
from paqett.cli.output import say
from paqett.cli.running import Process, until_signal
from paqett.errors import ConfigurationError
from paqett.settings import Settings
from paqett.web.exposure import check_ops_listener


def register(commands: Commands) -> None:
    """The processes of a deployment, and the agent of a machine."""
    commands.add("api", _process(_api, listens_for_ops=False), "serve HTTP")
    commands.add("ingest", _process(_ingest), "write what arrives over MQTT")
    commands.add("worker", _process(_worker), "work jobs and look after retention")
    commands.add(
        "broker", _broker, "run Mosquitto, or look after a RabbitMQ or EMQX",
        arg("--write-config", metavar="FOLDER",
            help="write RabbitMQ's or EMQX's configuration, and end"),
    )  # fmt: skip
    commands.add("agent", _process(_agent), "send this machine's own readings")


def _process(run: Process, *, listens_for_ops: bool = True) -> Run:
    """The API has a listener of its own for them, in its own loop."""

    def start(settings: Settings, _: argparse.Namespace) -> int:
        check_ops_listener(settings)
        tracing.configure(on=settings.ops.tracing)
        if settings.ops.port and listens_for_ops:
            ops.listen(settings.ops.host, settings.ops.port)
        uvloop.run(until_signal(run, settings))
        return 0

    return start


def _broker(settings: Settings, arguments: argparse.Namespace) -> int:
    from paqett.broker import process, server_files

    if arguments.write_config:
        for path in server_files.write(settings, Path(arguments.write_config)):
            say(f"wrote {path}")
        return 0
    return _process(process.run)(settings, arguments)


async def _ingest(settings: Settings, stop: asyncio.Event) -> None:
    from paqett.ingest import process

    await process.run(settings, stop)


async def _worker(settings: Settings, stop: asyncio.Event) -> None:
    from paqett.worker import process

    await process.run(settings, stop)


async def _api(settings: Settings, stop: asyncio.Event) -> None:
    from paqett.app import services, wait_for_database
    from paqett.web import server

    await wait_for_database(settings, stop)
    if not stop.is_set():
        async with services(settings, "api") as opened:
            await server.serve(opened, stop)


async def _agent(settings: Settings, stop: asyncio.Event) -> None:
    from paqett.local import agent

    own = settings.agent
    if not own.device_id or not own.secret:
        raise ConfigurationError("PAQETT_AGENT__DEVICE_ID and PAQETT_AGENT__SECRET are not set")
    ops.health.note("agent", "ok", "sends this machine's readings")
    await agent.run(
        own.host, own.port, own.device_id, own.secret, stop, own.interval_s, tls=own.tls
    )
