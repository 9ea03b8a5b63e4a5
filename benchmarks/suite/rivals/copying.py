"""`mosquitto_sub | psql COPY`, in lots, since one COPY is one transaction."""

import os
import time
from pathlib import Path

from suite.rivals import scratch
from suite.rivals.system import DATABASE, System
from suite.stand import WRITER, WRITER_PASSWORD, BenchmarkError, Stand

LOT = 5_000
_CLIENT = "copying"
_TABLE = """
DROP TABLE IF EXISTS copied;
CREATE TABLE copied (
    topic text NOT NULL, payload jsonb NOT NULL,
    device text GENERATED ALWAYS AS (split_part(topic, '/', 3)) STORED,
    time timestamptz GENERATED ALWAYS AS (to_timestamp((payload ->> 'ts')::float8 / 1e6)) STORED
);
CREATE INDEX ON copied (device, time);"""
_PIPE = (
    "mosquitto_sub -h 127.0.0.1 -p {port} -u {user} -P {password} -i {client} -c -q 1"
    " -t 'paqett/v1/+/telemetry' -F '%t\t%p'"
    " | split -l {lot} --filter 'psql -X -q -c \"COPY copied (topic, payload) FROM STDIN\"'"
)


class Copying(System):
    """A row for each message, the payload as JSON."""

    name = f"mosquitto_sub | psql COPY, {LOT:,} lines a time"
    table = "copied"
    identity = "time, device"
    holds_back = True
    trial = 4 * LOT
    promise = f"acknowledged on arrival: a kill loses up to {LOT:,} messages and the pipes"
    needs = f"stores nothing before {LOT:,} lines have come; readings stay JSON"

    def __init__(self, made: Stand, folder: Path) -> None:
        super().__init__(made, folder)
        self._connections = 0

    def prepare(self) -> None:
        scratch.debian()
        self.version = f"mosquitto-clients {scratch.version_of('mosquitto-clients')}, "
        self.version += scratch.run("psql", "--version")
        self.execute(_TABLE)

    def launch(self) -> None:
        pipe = _PIPE.format(
            port=self.made.ports["platform"], user=WRITER, password=WRITER_PASSWORD,
            client=_CLIENT, lot=LOT,
        )  # fmt: skip
        cluster = self.made.cluster
        environ = {
            **os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(cluster.port), "PGUSER": "postgres",
            "PGPASSWORD": cluster.password, "PGDATABASE": DATABASE,
        }  # fmt: skip
        self.spawn("bash", "-c", pipe, environ=environ)

    def wait_until_it_takes(self) -> None:
        """A lot's worth of messages would be needed: that the broker knows it is enough."""
        log, deadline = self.made.folder / "open.log", time.monotonic() + 30
        self._connections += 1
        while log.read_text().count(f" as {_CLIENT} ") < self._connections:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"mosquitto_sub does not connect\n{self.made.log_tail()}")
            time.sleep(0.1)
        time.sleep(0.5)  # from its sign-in to its subscription

    def finish(self) -> None:
        """End the subscriber, so that the last lot is stored."""
        self.end_all("mosquitto_sub")
