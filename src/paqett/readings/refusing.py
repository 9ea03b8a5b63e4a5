"""Why a plan or the contract refuses a message or a point, in words for people."""

from paqett.plans import Plan
from paqett.readings.ledger import LATE_BUCKET_EMPTY
from paqett.readings.rejection import Rejection

CLOSING = Rejection(0, None, "account_closing", "the account is being deleted")
BAD_TOPIC = Rejection(
    0, None, "bad_topic", "a device publishes to telemetry, telemetry/… and attributes"
)


def too_large(size: int, plan: Plan) -> Rejection:
    """A message of `size` bytes."""
    detail = f"{size} bytes; the plan allows {plan.message_bytes}"
    return Rejection(0, None, "payload_too_large", detail)


def too_fast(index: int, metric: str | None, plan: Plan | None) -> Rejection:
    """A point, or without `metric` a message, beyond its device's rate."""
    rate, burst = (plan.messages_per_second, plan.message_burst) if plan else (0, 0)
    detail = f"more than {rate} messages a second, beyond a burst of {burst or rate}"
    return Rejection(index, metric, "rate_limited", detail)


def no_more_metrics(index: int, metric: str, plan: Plan | None) -> Rejection:
    """A metric its device has no room for."""
    most = plan.metrics_per_device if plan else None
    detail = f"the plan allows {most} metrics for a device"
    return Rejection(index, metric, "metric_limit", detail)


def of_another_kind(index: int, metric: str, kind: str) -> Rejection:
    """A value that is no `kind`, as its metric is."""
    detail = f"the metric is a {kind}; its kind can be changed"
    return Rejection(index, metric, "type_conflict", detail)


def too_late(index: int, metric: str) -> Rejection:
    """A late point that the late bucket has no room for."""
    return Rejection(index, metric, "quota_exceeded", LATE_BUCKET_EMPTY)


def over_quota(index: int, metric: str) -> Rejection:
    """A point past the quota's end."""
    return Rejection(index, metric, "quota_exceeded", "150 % of the day's quota is used")


def thinned(index: int, metric: str) -> Rejection:
    """A point past the quota whose 5 minutes hold another."""
    detail = "past the day's quota one reading of a series is kept in 5 minutes"
    return Rejection(index, metric, "quota_thinned", detail)


def far_over(index: int, metric: str) -> Rejection:
    """A point of more than are looked up, lest they be duplicates."""
    return Rejection(index, metric, "quota_exceeded", "far more than there is room for")
