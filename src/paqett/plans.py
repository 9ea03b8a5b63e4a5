"""The plans, from `config/plans.toml` or the file a setting names."""

import tomllib
from pathlib import Path

import msgspec

from paqett.errors import ConfigurationError


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan allows; None is no limit. A point is one metric value.

    `points_per_day` counts UTC days of receipt, `messages_per_second` and `message_burst` hold for
    each device, `message_bytes` for each message. `late_days` days' points are the late bucket.
    A plan that can be bought has the lookup key of its price at Stripe.
    """

    name: str
    tier: str
    message_bytes: int
    grafana: bool
    devices: int | None = None
    metrics_per_device: int | None = None
    points_per_day: int | None = None
    messages_per_second: int | None = None
    message_burst: int | None = None
    late_days: int | None = None
    requests_per_minute: int | None = None
    alert_rules: int | None = None
    live_streams: int | None = None
    exports_per_day: int | None = None
    stripe_lookup_key: str | None = None

    @property
    def is_sold(self) -> bool:
        """Whether it can be bought where Stripe is set up."""
        return self.stripe_lookup_key is not None

    @property
    def limits_ingest(self) -> bool:
        """Whether a flush must keep account of what is used."""
        return self.points_per_day is not None or self.messages_per_second is not None


def load_plans(path: Path) -> dict[str, Plan]:
    """Every plan by its name. Raises `ConfigurationError` naming the file and what is wrong."""
    try:
        tables = tomllib.loads(path.read_text())
        return {
            name: msgspec.convert({"name": name, **table}, Plan) for name, table in tables.items()
        }
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, TypeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
