"""Latency at half of the rate that was measured as the highest."""

import json
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from statistics import mean
from typing import Any

from paqett.children import die_with_parent
from suite import probe, scrape
from suite.form import Form
from suite.load import Load, drive
from suite.measured import SINGLE, sized
from suite.stand import BENCHMARKS, BenchmarkError, Stand, stand

PROBES = 10
_HISTOGRAMS = ("paqett_ingest_flush_seconds", "paqett_ingest_lag_seconds")


def milliseconds(values: list[float]) -> dict[str, float]:
    """p50, p99 and the greatest of values in seconds."""
    ordered = sorted(values)
    last = len(ordered) - 1
    places = {"p50": ordered[last // 2], "p99": ordered[round(last * 0.99)], "max": ordered[last]}
    return {name: round(value * 1000, 1) for name, value in places.items()}


class Prober:
    """The prober's process: begun when the load begins, asked for its account when it is over."""

    def __init__(self, stand: Stand, seconds: float) -> None:
        devices = [(device.id, device.secret) for device in stand.devices[-PROBES:]]
        self._job = probe.Job(devices, stand.ports["plain"], stand.url, seconds)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "suite.probe"], cwd=BENCHMARKS, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )  # fmt: skip

    def begin(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(asdict(self._job)) + "\n")
        self._child.stdin.flush()

    def account(self) -> dict[str, Any]:
        """Raises `BenchmarkError` where it failed."""
        answer, _ = self._child.communicate(timeout=self._job.seconds + 60)
        if self._child.returncode:
            raise BenchmarkError("the prober failed")
        return dict(json.loads(answer))

    def close(self) -> None:
        self._child.kill()
        self._child.wait()


def _of_histograms(before: str, after: str) -> dict[str, Any]:
    """What ingest measured itself; None where this version has no such histogram."""
    found: dict[str, Any] = {}
    for name in _HISTOGRAMS:
        buckets = scrape.since(scrape.histogram(before, name), scrape.histogram(after, name))
        quantiles = {"p50": scrape.quantile(buckets, 0.5), "p99": scrape.quantile(buckets, 0.99)}
        found[name] = None
        if quantiles["p99"] is not None:
            found[name] = {
                key: round(value * 1000, 1) for key, value in quantiles.items() if value is not None
            }
    return found


def run(form: Form) -> dict[str, Any]:
    """Probes among a steady load, and ingest's own histograms over the same time."""
    with stand(form.devices) as made:
        made.start()
        full = drive(made, sized(made, SINGLE, form.seconds)).messages_per_second
        rate = full / 2
        seconds = form.probe_seconds
        load = Load(SINGLE, round(rate * (seconds + 3)), rate=rate, spare_devices=PROBES)
        before = scrape.fetch(made.metrics_url)
        with closing(Prober(made, seconds)) as prober:
            done = drive(made, load, prober.begin)
            seen = prober.account()
        after = scrape.fetch(made.metrics_url)
    return {
        "highest_messages_per_second": round(full),
        "load": done.report(),
        "probes": len(seen["latencies"]),
        "unseen": seen["unseen"],
        "visible_ms": milliseconds(seen["latencies"]),
        "error_ms": milliseconds(seen["rounds"]) | {"mean": round(1000 * mean(seen["rounds"]), 1)},
        "ingest_ms": _of_histograms(before, after),
    }
