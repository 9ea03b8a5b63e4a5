"""What alert rules see of a flush: its fresh readings, those without room among them."""

from typing import Any, NamedTuple

import numpy as np

from paqett.conditions import Reading
from paqett.readings.batch import Batch, Over
from paqett.readings.limits import LATE_US
from paqett.readings.rows import Ints


class Seen:
    """The readings of one flush, gathered as they are stored; times in µs.

    Numbers are columns, of texts only the series matter: no threshold judges them.
    """

    def __init__(self) -> None:
        self._numbers: list[tuple[Ints, Ints, Any, Ints]] = []
        self.texts: dict[int, int] = {}  # the newest receipt of each series' fresh texts
        self._over: list[tuple[Over, int]] = []
        self.accounts: set[int] = set()  # those with rules about a device of the flush

    def add(self, batch: Batch) -> None:
        """A batch that was stored."""
        self.accounts |= {entry.account_id for entry in batch.known if entry.judged}
        received = batch.received_us
        for found in batch.seen_numbers:
            self._numbers.append((found.series, found.times, found.values, received[found.numbers]))
        for series_id, time_us, number, _ in batch.seen_texts:
            self._add_text(series_id, time_us, int(received[number]))
        for point in batch.seen_over:
            # one beyond its device's message rate is no reading
            if point.entry.judged and not point.late and not point.too_fast:
                self._add_over(point, int(received[point.number]))

    def _add_text(self, series_id: int, time_us: int, received_us: int) -> None:
        if time_us >= received_us - LATE_US:
            self.texts[series_id] = max(received_us, self.texts.get(series_id, 0))

    def _add_over(self, point: Over, received_us: int) -> None:
        self._over.append((point, received_us))
        if isinstance(point.value, str):
            self._add_text(point.series_id, point.time_us, received_us)
            return
        columns = [point.series_id], [point.time_us], [float(point.value)], [received_us]
        series, times, values, received = (np.array(column) for column in columns)
        self._numbers.append((series, times, values, received))

    def fresh(self) -> "Fresh":
        """Numbers that are not late, as they came."""
        if not self._numbers:
            none = np.zeros(0, np.int64)
            return Fresh(none, none, np.zeros(0), none)
        columns = [np.concatenate(parts) for parts in zip(*self._numbers, strict=True)]
        keep = columns[1] >= columns[3] - LATE_US
        return Fresh(*(column[keep] for column in columns))

    def marks(self) -> dict[str, Any] | None:
        """What `mark_alert_readings` takes; None where there was room for everything."""
        if not self._over:
            return None
        return {
            "accounts": [point.entry.account_id for point, _ in self._over],
            "devices": [point.entry.device_id for point, _ in self._over],
            "series": [point.series_id for point, _ in self._over],
            "times": [point.time_us for point, _ in self._over],
            "received": [received_us for _, received_us in self._over],
        }


class Fresh(NamedTuple):
    series: Ints
    times: Ints
    values: Any
    received: Ints

    def sorted_by_identity(self, wanted: Ints) -> "Fresh":
        """Those of some series, sorted by (series, time); of equal identities the first stays."""
        keep = np.isin(self.series, wanted)
        columns = [column[keep] for column in self]
        order = np.lexsort((columns[1], columns[0]))
        series, times, values, received = (column[order] for column in columns)
        first = np.ones(len(series), bool)
        first[1:] = (series[1:] != series[:-1]) | (times[1:] != times[:-1])
        return Fresh(series[first], times[first], values[first], received[first])

    def of(self, series_id: int) -> list[Reading]:
        """One series' readings in the order of their times; `self` is sorted."""
        low, high = np.searchsorted(self.series, (series_id, series_id + 1))
        rows = zip(
            self.times[low:high].tolist(), self.values[low:high].tolist(),
            self.received[low:high].tolist(), strict=True,
        )  # fmt: skip
        return [Reading(t, min(t, received), value, received) for t, value, received in rows]
