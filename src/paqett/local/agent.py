"""`paqett agent`: this machine as a device, at most 12 metrics at a time."""

import asyncio
import time
from contextlib import suppress

import msgspec
import psutil

from paqett import log
from paqett.mqtt.publisher import Publisher

_logger = log.get("agent")
_MAX_METRICS = 12
_KEPT_S = 3600.0
_FIRST_SPAN_S = 0.2  # the first rates need a moment to be over


class Meter:
    """Reads this machine; rates are over the time since the last reading."""

    def __init__(self) -> None:
        psutil.cpu_percent()
        self._at = time.monotonic()
        self._totals = self._counters()

    def _counters(self) -> dict[str, int]:
        """Bytes since the machine started."""
        totals: dict[str, int] = {}
        network = psutil.net_io_counters()
        if network is not None:
            totals |= {
                "net.sent_bytes": network.bytes_sent,
                "net.received_bytes": network.bytes_recv,
            }
        disk = None
        with suppress(RuntimeError, OSError):  # a container may hide its disks
            disk = psutil.disk_io_counters()
        if disk is not None:
            totals |= {"disk.read_bytes": disk.read_bytes, "disk.written_bytes": disk.write_bytes}
        return totals

    def read(self) -> dict[str, float]:
        """Percent, bytes, bytes a second, °C: the name says which."""
        memory = psutil.virtual_memory()
        values: dict[str, float] = {
            "cpu.percent": psutil.cpu_percent(),
            "load.1m": psutil.getloadavg()[0],
            "memory.percent": memory.percent,
            "memory.available_bytes": memory.available,
            "disk.percent": psutil.disk_usage("/").percent,
            "processes": len(psutil.pids()),
            "uptime_s": round(time.time() - psutil.boot_time()),
            **self._rates(),
            **_temperature(),
        }
        return dict(list(values.items())[:_MAX_METRICS])

    def _rates(self) -> dict[str, float]:
        now, totals = time.monotonic(), self._counters()
        span = max(now - self._at, 0.001)
        rates = {
            f"{name}_per_s": round(max(total - self._totals.get(name, total), 0) / span, 1)
            for name, total in totals.items()
        }
        self._at, self._totals = now, totals
        return rates


def _temperature() -> dict[str, float]:
    """The hottest sensor, where the machine has any."""
    if not hasattr(psutil, "sensors_temperatures"):
        return {}
    found = [
        entry.current for entries in psutil.sensors_temperatures().values() for entry in entries
    ]
    return {"temperature_c": max(found)} if found else {}


def report(meter: Meter, now_us: int) -> bytes:
    """One message: `{"ts": µs since 1970, "values": {…}}`."""
    return msgspec.json.encode({"ts": now_us, "values": meter.read()})


async def run(
    host: str, port: int, device_id: str, secret: str, stop: asyncio.Event,
    interval_s: float = 15.0, *, tls: bool = False,
) -> None:  # fmt: skip
    """Report now and every `interval_s` seconds until `stop`.

    Each report carries the time it was measured at; up to an hour of them waits for the broker.
    """
    kept = max(10, round(_KEPT_S / interval_s))
    publisher = Publisher(host, port, device_id, secret, tls=tls, kept=kept)
    _logger.info("reporting", device=device_id, every_s=interval_s)
    async with publisher:
        meter = Meter()
        await asyncio.sleep(_FIRST_SPAN_S)
        while not stop.is_set():
            try:
                publisher.enqueue("telemetry", report(meter, time.time_ns() // 1000))
            except (psutil.Error, OSError) as error:  # one reading less, not what waits as well
                _logger.warning("not measured", error=str(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), interval_s)
        await publisher.close(grace_s=1.0)
