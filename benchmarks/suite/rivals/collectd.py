"""collectd with its plugins mqtt and postgresql, and the tables it ships."""

import gzip
from pathlib import Path

from paqett.local.shape import Shape
from suite.rivals import forms, scratch
from suite.rivals.system import DATABASE, System
from suite.stand import WRITER, WRITER_PASSWORD

_SQL = "usr/share/doc/collectd-core/examples/postgresql/collectd_insert.sql"
_CONF = """\
Hostname "benchmark"
FQDNLookup false
BaseDir "{folder}"
PIDFile "{folder}/pid"
PluginDir "{tree}/usr/lib/collectd"
TypesDB "{tree}/usr/share/collectd/types.db"
# more would let a series' values overtake one another, and the later one would be dropped
WriteThreads 1
LoadPlugin mqtt
LoadPlugin postgresql
<Plugin mqtt>
  <Subscribe "devices">
    Host "127.0.0.1"
    Port {mqtt_port}
    User "{user}"
    Password "{password}"
    ClientId "collectd"
    QoS 1
    Topic "collectd/#"
    CleanSession false
  </Subscribe>
</Plugin>
<Plugin postgresql>
  <Writer sqlstore>
    Statement "SELECT collectd_insert($1, $2, $3, $4, $5, $6, $7, $8, $9);"
  </Writer>
  <Database "{database}">
    Host "127.0.0.1"
    Port "{port}"
    User "postgres"
    Password "{secret}"
    SSLMode "disable"
    Writer sqlstore
    CommitInterval 1
  </Database>
</Plugin>
"""


class Collectd(System):
    """A statement for each value, a commit a second."""

    name = "collectd"
    form = "collectd"
    shape = Shape(metrics=[forms.METRIC], per_item=1)
    table = '"values"'
    identity = "id, tstamp"
    holds_back = True
    trial = 3_000  # it commits once a second
    promise = "acknowledged on arrival: a kill loses the queue and up to a second's commits"
    needs = "topics and payloads of its own form; commits a second's values when more come"

    def prepare(self) -> None:
        scratch.debian()
        tree = scratch.unpacked("collectd-core")
        self.version = scratch.archive_version("collectd-core")
        self._daemon = tree / "usr/sbin/collectd"
        self.execute(
            'DROP TABLE IF EXISTS "values", identifiers CASCADE;'
            " DROP FUNCTION IF EXISTS values_insert_trigger CASCADE"
        )
        self.execute(_text(tree / _SQL))
        conf = _CONF.format(
            folder=self.folder, tree=tree, mqtt_port=self.made.ports["platform"], user=WRITER,
            password=WRITER_PASSWORD, database=DATABASE, port=self.made.cluster.port,
            secret=self.made.cluster.password,
        )  # fmt: skip
        (self.folder / "collectd.conf").write_text(conf)

    def launch(self) -> None:
        self.spawn(str(self._daemon), "-f", "-C", str(self.folder / "collectd.conf"))

    def clear(self) -> None:
        """Its transaction stays open, and would hold up TRUNCATE."""
        self.kill()
        super().clear()
        self.launch()

    def finish(self) -> None:
        """It commits when it is ended."""
        self.end_all()


def _text(path: Path) -> str:
    packed = path.with_name(path.name + ".gz")
    return gzip.decompress(packed.read_bytes()).decode() if packed.exists() else path.read_text()
