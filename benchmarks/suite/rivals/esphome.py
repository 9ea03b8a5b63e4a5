"""esphome-mqtt-timescaledb-ingestor, of PyPI."""

import json
import os
import time

from paqett.local.shape import Shape
from suite.rivals import forms, scratch
from suite.rivals.system import DATABASE, System
from suite.stand import WRITER, WRITER_PASSWORD, BenchmarkError

_PACKAGE = "esphome-mqtt-timescaledb-ingestor"


class Esphome(System):
    """At most 100 readings a second, whatever comes."""

    name = _PACKAGE
    form = "esphome"
    shape = Shape(metrics=[forms.METRIC], per_item=1)
    table = "esphome_data"
    identity = "device_id, value"
    trial = 200
    promise = "subscribes at QoS 0 without a session: what comes while it is away is gone"
    needs = "numbers with a sign: a plain one is thrown away; times are its own, to the second"

    def prepare(self) -> None:
        self._bin = scratch.environment("esphome", _PACKAGE)
        python = str(self._bin / "python")
        told = scratch.run(python, "-m", "pip", "list", "--format", "json")
        versions = {one["name"].lower(): one["version"] for one in json.loads(told)}
        self.version = f"{versions[_PACKAGE]}, paho-mqtt {versions['paho-mqtt']}"
        cluster = self.made.cluster
        conf = {
            "database": {
                "host": "127.0.0.1", "port": cluster.port, "dbname": DATABASE, "user": "postgres",
                "password": cluster.password,
            },
            "mqtt": {
                "host": "127.0.0.1", "port": self.made.ports["platform"], "username": WRITER,
                "password": WRITER_PASSWORD,
            },
        }  # fmt: skip
        (self.folder / ".esphome-ingestor").mkdir()
        path = self.folder / ".esphome-ingestor" / "ingestor_config.json"
        path.write_text(json.dumps(conf))
        self.execute("DROP TABLE IF EXISTS esphome_data")

    def wait_until_it_takes(self) -> None:
        """It makes its tables when it starts."""
        deadline = time.monotonic() + 30
        while not self.execute("SELECT 1 FROM pg_tables WHERE tablename = 'esphome_data'"):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"it makes no tables\n{self.made.log_tail()}")
            time.sleep(0.2)
        super().wait_until_it_takes()

    def launch(self) -> None:
        environ = {**os.environ, "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}
        self.spawn(str(self._bin / "mqtt-ingestor"), "start", environ=environ)
