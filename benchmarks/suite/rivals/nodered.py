"""Node-RED: `mqtt in`, and a function node with node-postgres.

Its PostgreSQL nodes are built on node-postgres. Those that the registry has here carry version 6
of it, which never connects under the Node.js that Node-RED 5 needs; so the library's current
version is used as Node-RED offers any library, in a function node, with the pool of ten connections
that those nodes use.
"""

import json
from pathlib import Path
from typing import Any

from suite.rivals import scratch
from suite.rivals.system import DATABASE, System
from suite.stand import WRITER, WRITER_PASSWORD

_HERE = Path(__file__).parent
_TABLE = """
DROP TABLE IF EXISTS nodered;
CREATE TABLE nodered (
    time timestamptz NOT NULL, device text NOT NULL,
    temperature float8, humidity float8, battery float8
);
SELECT create_hypertable('nodered', 'time', chunk_time_interval => interval '1 day',
    create_default_indexes => false);
CREATE INDEX ON nodered (device, time DESC);"""
_SETTINGS = """module.exports = {{
    uiHost: "127.0.0.1", uiPort: {port}, httpAdminRoot: false, httpNodeRoot: false,
    credentialSecret: false, functionExternalModules: true, flowFile: "flows.json",
    telemetry: {{ enabled: false, updateNotification: false }},
    logging: {{ console: {{ level: "warn" }} }},
}};
"""


class NodeRed(System):
    """An insert for each message."""

    name = "Node-RED, an INSERT a message"
    table = "nodered"
    identity = "time, device"
    promise = "acknowledged on arrival: a kill loses what waits for its INSERT"
    needs = "a function node: see below"
    batched = False

    def prepare(self) -> None:
        prefix = scratch.prefix("node-red", "node-red@5", "pg@8")
        self._red = prefix / "node_modules" / "node-red" / "red.js"
        self.version = self._version_of(prefix, "node-red", "pg") + ", Node.js "
        self.version += scratch.run(scratch.tool("node"), "--version").lstrip("v")
        self.execute(_TABLE)
        (self.folder / "node_modules").symlink_to(prefix / "node_modules")
        (self.folder / "package.json").write_text((prefix / "package.json").read_text())
        settings = _SETTINGS.format(port=self.made.ports["ops"] + 1000)
        (self.folder / "settings.js").write_text(settings)
        (self.folder / "flows.json").write_text(json.dumps(self._flow(), indent=1))
        secrets = {"broker": {"user": WRITER, "password": WRITER_PASSWORD}}
        (self.folder / "flows_cred.json").write_text(json.dumps(secrets))

    @staticmethod
    def _version_of(prefix: Path, *packages: str) -> str:
        found = []
        for package in packages:
            about = json.loads((prefix / "node_modules" / package / "package.json").read_text())
            found.append(f"{package} {about['version']}")
        return ", ".join(found)

    def _script(self, name: str) -> str:
        text = (_HERE / name).read_text()
        return text.replace("@batched@", json.dumps(self.batched))

    def _flow(self) -> list[dict[str, Any]]:
        return [
            {"id": "flow", "type": "tab", "label": "ingest"},
            {
                "id": "broker", "type": "mqtt-broker", "name": "", "broker": "127.0.0.1",
                "port": str(self.made.ports["platform"]), "clientid": "node-red",
                "autoConnect": True, "usetls": False, "protocolVersion": "4", "keepalive": "60",
                "cleansession": False,
            },
            {
                "id": "in", "type": "mqtt in", "z": "flow", "topic": "paqett/v1/+/telemetry",
                "qos": "1", "datatype": "utf8", "broker": "broker", "nl": False, "rap": True,
                "rh": 0, "inputs": 0, "wires": [["store"]],
            },
            {
                "id": "store", "type": "function", "z": "flow", "func": self._script("nodered.js"),
                "initialize": self._script("nodered_start.js"), "finalize": "", "outputs": 0,
                "timeout": 0, "noerr": 0, "libs": [{"var": "pg", "module": "pg"}], "wires": [],
            },
        ]  # fmt: skip

    def launch(self) -> None:
        environ = {**scratch.with_tools(), "DATABASE_URL": self.made.cluster.url(DATABASE)}
        self.spawn(
            scratch.tool("node"), str(self._red), "--userDir", str(self.folder),
            "--settings", str(self.folder / "settings.js"), environ=environ,
        )  # fmt: skip


class NodeRedBatched(NodeRed):
    """What came in 250 ms in one statement."""

    name = "Node-RED, an INSERT each 250 ms"
    promise = "acknowledged on arrival: a kill loses the last 250 ms, and what waits"
    batched = True
