"""End to end at QoS 1 with durable acknowledgement, against the COPY ceiling of the same run.

Everything stands on this machine: publisher, Mosquitto, ingest, PostgreSQL. The ceiling is one
connection copying pre-assembled binary rows of the same shape into the same hypertable, 10,000 rows
a transaction. Writes `benchmarks/results/ingest.json` and prints a table.

    python benchmarks/ingest.py [--messages 60000] [--devices 1000]
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import gmqtt
import psycopg

from paqett import db, migrate
from paqett.children import free_port
from paqett.local import fleet, postgres
from paqett.plans import load_plans
from paqett.readings import copy
from paqett.settings import Settings, load

HERE = Path(__file__).parent
METRICS = 3
COPY = "COPY telemetry_own (time, account_id, series_id, value) FROM STDIN (FORMAT BINARY)"


def copy_ceiling(url: str, rows: int, devices: int) -> float:
    """Rows a second of one connection; the rows are removed again."""
    batch = 10_000
    start_us = time.time_ns() // 1000 - rows
    with psycopg.connect(url) as conn:
        taken = 0.0
        for first in range(0, rows, batch):
            data = sorted(
                (10_000_000 + n % (devices * METRICS), start_us + n, 1, float(n))
                for n in range(first, first + batch)
            )
            began = time.perf_counter()
            with conn.cursor() as cursor, cursor.copy(COPY) as target:
                target.write(copy.numbers(data))
            conn.commit()
            taken += time.perf_counter() - began
        conn.execute("TRUNCATE telemetry_own")
    return rows / taken


def settings_for(url: str, folder: Path) -> Settings:
    """Settings of the processes under measurement."""
    port = free_port(19500)
    return load(
        {
            "PAQETT_DATABASE__URL": url,
            "PAQETT_PAQETT__DATA_DIR": str(folder),
            "PAQETT_PAQETT__PLANS_FILE": str(HERE / "plans.toml"),
            "PAQETT_MQTT__PORT": str(port),
            "PAQETT_MQTT__PASSWORD": "writer",
            "PAQETT_BROKER__LISTEN_PORT": str(free_port(port + 1)),
        }
    )


async def _publish(device: fleet.SimDevice, port: int, messages: int, items: int) -> None:
    client = gmqtt.Client(device.id)
    client.set_auth_credentials(device.id, device.secret)
    await client.connect("127.0.0.1", port)
    waiting = client._persistent_storage  # noqa: SLF001 - the benchmark counts what is in flight
    at = time.time_ns() // 1000
    for number in range(messages):
        while len(waiting._messages) >= 100:  # noqa: ASYNC110, SLF001 - a window, cheaply
            await asyncio.sleep(0.001)
        stamped = [
            {"ts": at + number * items + n, "a": number, "b": 21.5, "c": n} for n in range(items)
        ]
        payload = json.dumps(stamped if items > 1 else stamped[0])
        client.publish(f"paqett/v1/{device.id}/telemetry", payload, qos=1)
    while waiting._messages:  # noqa: ASYNC110, SLF001 - until the last acknowledgement
        await asyncio.sleep(0.001)
    await client.disconnect()


def publish(job: str) -> None:
    """A publisher process: many devices over a few connections would not be a fleet."""
    devices, port, messages, items = json.loads(job)

    async def run() -> None:
        for start in range(0, len(devices), 50):
            await asyncio.gather(
                *(
                    _publish(fleet.SimDevice(*device), port, messages, items)
                    for device in devices[start : start + 50]
                )
            )

    asyncio.run(run())


def _children(environ: dict[str, str]) -> list[subprocess.Popen[bytes]]:
    return [
        subprocess.Popen([sys.executable, "-m", "paqett", name], env={**os.environ, **environ})
        for name in ("broker", "ingest")
    ]


async def end_to_end(
    settings: Settings, devices: list[fleet.SimDevice], messages: int, items: int
) -> float:
    """Rows a second from the first publish to the commit of the last reading."""
    each = messages // len(devices)
    rows = each * len(devices) * items * METRICS
    job = json.dumps(
        [
            [(d.id, d.secret, d.account_id) for d in devices],
            settings.broker.listen_port, each, items,
        ]
    )  # fmt: skip
    began = time.perf_counter()
    publisher = await asyncio.create_subprocess_exec(sys.executable, __file__, "--publish", job)
    async with await db.connect(settings.database, "bench", autocommit=True) as conn:
        await publisher.wait()
        while True:
            row = await (await conn.execute("SELECT count(*) AS n FROM telemetry_own")).fetchone()
            if row and row["n"] >= rows:
                break
            await asyncio.sleep(0.01)
        taken = time.perf_counter() - began
        await conn.execute("TRUNCATE telemetry_own")
    return rows / taken


async def measure(url: str, folder: Path, messages: int, devices: int) -> dict[str, float]:
    """Every figure of one run."""
    settings = settings_for(url, folder)
    environ = {
        "PAQETT_DATABASE__URL": url,
        "PAQETT_PAQETT__DATA_DIR": str(folder),
        "PAQETT_PAQETT__PLANS_FILE": str(HERE / "plans.toml"),
        "PAQETT_MQTT__PORT": str(settings.mqtt.port),
        "PAQETT_MQTT__PASSWORD": "writer",
        "PAQETT_BROKER__LISTEN_PORT": str(settings.broker.listen_port),
    }
    async with await db.connect(settings.database, "bench", autocommit=True) as conn:
        await migrate.migrate(conn)
        plan = load_plans(HERE / "plans.toml")["bench"]
        made = await fleet.create(conn, "bench", devices, 10, plan)
    ceiling = copy_ceiling(url, 300_000, devices)
    children = _children(environ)
    try:
        await asyncio.sleep(3)
        await end_to_end(settings, made, devices, 1)  # series are made here
        single = await end_to_end(settings, made, messages, 1)
        tens = await end_to_end(settings, made, messages // 5, 10)
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGTERM)
            child.wait(30)
    return {"copy_ceiling": ceiling, "messages_of_3_points": single, "messages_of_30_points": tens}


def main() -> None:
    """Run, print, write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--publish", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        publish(arguments.publish)
        return
    folder = Path(tempfile.mkdtemp(prefix="paqett-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    cluster = postgres.create(folder / "postgres", free_port(56000), shared_buffers="2GB")
    server = postgres.start(cluster, folder / "server.log")
    try:
        postgres.wait_ready(cluster.url())
        postgres.create_database(cluster, "bench")
        figures = asyncio.run(
            measure(cluster.url("bench"), folder, arguments.messages, arguments.devices)
        )
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder)
    ceiling = figures["copy_ceiling"]
    print(f"{'':28}{'points/s':>12}{'of ceiling':>12}")
    for name, rate in figures.items():
        print(f"{name:28}{rate:12,.0f}{rate / ceiling:12.2f}")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "messages": arguments.messages,
        "devices": arguments.devices,
        "points_per_second": {name: round(rate) for name, rate in figures.items()},
        "of_ceiling": {name: round(rate / ceiling, 3) for name, rate in figures.items()},
    }
    (results / "ingest.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
