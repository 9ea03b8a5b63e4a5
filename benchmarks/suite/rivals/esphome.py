"""esphome-mqtt-timescaledb-ingestor, of PyPI."""

import json
import os
import time

from paqett.local.shape import Shape
from suite.rivals import forms, scratch
from suite.rivals.system import DATABASE, System
from suite.stand import WRITER, WRITER_PASSWORD

_PACKAGE = "esphome-mqtt-timescaledb-ingestor"
_PATIENT_S = 6.0  # it writes once a second
_MENDED = """
DROP TABLE esphome_data;
CREATE TABLE esphome_data (
    time text NOT NULL, device_id text, sensor_name text, value double precision, attributes jsonb
);"""


class Esphome(System):
    """At most 100 readings a second, whatever comes."""

    name = _PACKAGE
    form = "esphome"
    shape = Shape(metrics=[forms.METRIC], per_item=1)
    table = "esphome_data"
    identity = "device_id, value"
    trial = 200
    promise = "subscribes at QoS 0 without a session: what comes while it is away is gone"
    needs = "a column `time` of type text, and numbers with a sign: see below"

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
        self._try_as_published()

    def _try_as_published(self) -> None:
        """What it stores with its own tables; then the column that lets it store anything."""
        self.execute("DROP TABLE IF EXISTS esphome_data")
        self.launch()
        deadline = time.monotonic() + 30
        while not self._has_table():
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        for number in range(10):
            self._send_one(number)
        time.sleep(_PATIENT_S)
        self.notes["stored of 10 as published"] = self.count().stored
        self.kill()
        self.execute(_MENDED)

    def _has_table(self) -> bool:
        [(found,)] = self.execute("SELECT to_regclass('esphome_data') IS NOT NULL")
        return bool(found)

    def launch(self) -> None:
        environ = {**os.environ, "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}
        self.spawn(str(self._bin / "mqtt-ingestor"), "start", environ=environ)
