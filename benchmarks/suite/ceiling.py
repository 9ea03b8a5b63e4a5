"""The ceiling: what one connection copies of the same rows into the same hypertable.

Binary COPY, 10,000 rows a transaction, each sorted by (series, time). The buffers are assembled
before the clock starts: there is nothing in the time but PostgreSQL and the handing over.
"""

import struct
import time
from itertools import islice
from operator import itemgetter

import psycopg

from paqett.local.shape import Row, Shape, rows
from suite.stand import READY_METRIC, TABLE, Stand

BATCH = 10_000
_COPY = f"COPY {TABLE} (time, account_id, series_id, value) FROM STDIN (FORMAT BINARY)"
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_EPOCH_US = 946_684_800_000_000  # PostgreSQL counts from 2000-01-01
_pack = struct.Struct("!hiqiiiiid").pack
_identity = itemgetter(0, 1)


def _assemble(batch: list[Row]) -> bytes:
    batch.sort(key=_identity)
    body = (
        _pack(4, 8, time_us - _EPOCH_US, 4, account, 4, series, 8, value)
        for series, time_us, account, value in batch
    )
    return b"".join((_HEADER, *body, _TRAILER))


def _fleet(stand: Stand) -> list[tuple[int, dict[str, int]]]:
    """Account and series of every device, in the fleet's order."""
    series: dict[str, dict[str, int]] = {device.id: {} for device in stand.devices}
    found = stand.conn.execute("SELECT device_id, metric, id FROM series")
    for device_id, metric, number in found:
        if metric != READY_METRIC:
            series[device_id][metric] = number
    return [(device.account_id, series[device.id]) for device in stand.devices]


def measure(stand: Stand, shape: Shape, limit: int) -> float:
    """Rows a second over `limit` rows, the hypertable cleared before. Series must exist."""
    source = rows(shape, _fleet(stand), time.time_ns() // 1000, limit)
    buffers = []
    while batch := list(islice(source, BATCH)):
        buffers.append(_assemble(batch))
    stand.clear()
    with psycopg.connect(stand.url) as conn:
        began = time.perf_counter()
        for data in buffers:
            with conn.cursor() as cursor, cursor.copy(_COPY) as target:
                target.write(data)
            conn.commit()
        return limit / (time.perf_counter() - began)
