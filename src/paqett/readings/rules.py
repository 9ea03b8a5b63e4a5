"""What a process knows of alert rules: which series they judge, and what is open at the moment.

Rules come with the directory's entries, so a rule's change reaches every flush that begins after
it. Open alerts are remembered by account, and are true while the account's version is the one that
was read under its lock (`alert_watch`).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from paqett.conditions import OPERATORS, Condition, Episode

Ints = NDArray[np.int64]
Key = tuple[int, str]  # rule id, device id


class Pair(NamedTuple):
    """A threshold rule on one series."""

    rule_id: int
    device_id: str
    account_id: int
    series_id: int
    condition: Condition

    @property
    def key(self) -> Key:
        """Where its alert stands."""
        return self.rule_id, self.device_id


class Open(msgspec.Struct):
    """An alert that is not resolved; `metric` None is any of the device's."""

    kind: str
    metric: str | None
    episode: Episode


class Pairs:
    """Pairs in the order of their series, as columns: what numpy judges a whole flush by."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.pairs = sorted(pairs, key=lambda pair: pair.series_id)
        conditions = [pair.condition for pair in self.pairs]
        self.series: Ints = np.array([pair.series_id for pair in self.pairs], np.int64)
        self.threshold = np.array([condition.threshold for condition in conditions])
        self.clear = np.array([condition.clear for condition in conditions])
        sides = [OPERATORS[condition.operator] for condition in conditions]
        self.below, self.at, self.above = np.array(sides, bool).reshape(-1, 3).T
        self.place = {pair.key: place for place, pair in enumerate(self.pairs)}

    def beyond(self, places: Ints, values: Any, levels: Any) -> Any:
        """Whether each value is on the bad side of its level."""
        level = levels[places]
        return (
            (self.below[places] & (values < level))
            | (self.at[places] & (values == level))
            | (self.above[places] & (values > level))
        )


class Rules:
    """The rules of the directory's devices, and the open alerts of their accounts."""

    def __init__(self) -> None:
        self._by_series: dict[int, list[Pair]] = {}
        self._pairs: Pairs | None = None
        self._versions: dict[int, int] = {}
        self._open: dict[int, dict[Key, Open]] = {}

    def __bool__(self) -> bool:
        return bool(self._versions)

    def learn(self, account_id: int, pairs: list[Pair]) -> None:
        """Rules are about a device of the account; `pairs` are its thresholds, maybe none."""
        self._versions.setdefault(account_id, -1)
        if pairs:
            self._pairs = None
        for pair in pairs:
            self._by_series.setdefault(pair.series_id, []).append(pair)

    def forget(self, account_id: int, series_ids: Iterable[int]) -> None:
        """A device of the account is no longer known, or what was learnt of it is in doubt."""
        for series_id in series_ids:
            if self._by_series.pop(series_id, None):
                self._pairs = None
        if account_id in self._versions:
            self._versions[account_id] = -1

    @property
    def pairs(self) -> Pairs:
        """Every threshold of the directory's devices."""
        if self._pairs is None:
            self._pairs = Pairs(pair for pairs in self._by_series.values() for pair in pairs)
        return self._pairs

    def stale(self, versions: dict[int, int]) -> list[int]:
        """Accounts whose open alerts must be read again."""
        return [key for key, version in versions.items() if self._versions.get(key) != version]

    def replace(self, versions: dict[int, int], rows: list[dict[str, Any]]) -> None:
        """The accounts' open alerts as they were read under their locks."""
        for account_id, version in versions.items():
            self._versions[account_id], self._open[account_id] = version, {}
        for row in rows:
            episode = Episode(
                row["since_us"], row["state"], row["value"] or 0.0, row["fired_us"], id=row["id"]
            )
            opened = Open(row["kind"], row["metric"], episode)
            self._open[row["account_id"]][row["rule_id"], row["device_id"]] = opened

    def open_alerts(self, account_id: int) -> dict[Key, Open]:
        """The account's, to be read and changed."""
        return self._open.setdefault(account_id, {})

    def advance(self, account_ids: Iterable[int]) -> None:
        """This process has changed the accounts' alerts, in memory and in the database."""
        for account_id in account_ids:
            self._versions[account_id] += 1
