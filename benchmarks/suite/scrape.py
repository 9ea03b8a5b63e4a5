"""Ingest's own figures, in Prometheus' text form."""

import re
import urllib.request

_SAMPLE = re.compile(r"^(\w+?)(_bucket)?(?:\{(.*)\})? ([-+.\deE]+|\+Inf|NaN)$")
_BOUND = re.compile(r'le="([^"]+)"')

Buckets = dict[float, float]  # upper bound, samples at or below it


def fetch(url: str) -> str:
    """The page as it is now."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def histogram(page: str, name: str) -> Buckets:
    """The buckets of `name`, over all labels; empty where there is no such histogram."""
    found: Buckets = {}
    for line in page.splitlines():
        sample = _SAMPLE.match(line)
        if sample and sample[1] == name and sample[2] and (bound := _BOUND.search(sample[3])):
            upper = float(bound[1])
            found[upper] = found.get(upper, 0.0) + float(sample[4])
    return found


def since(before: Buckets, after: Buckets) -> Buckets:
    """What came in between."""
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}


def quantile(buckets: Buckets, share: float) -> float | None:
    """The value below which `share` of the samples lie, read linearly within its bucket."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted = share * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / max(count - below, 1e-9)
        lower, below = bound, count
    return lower
