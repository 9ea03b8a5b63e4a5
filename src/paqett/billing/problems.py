"""What can go wrong with billing, each with its status and code."""

from paqett.errors import Conflict, NotFound, NotRetried, Problem, Unavailable


class BillingNotSetUp(NotFound):
    """No plans are sold here."""

    code = "billing_not_set_up"
    title = "Billing not set up"

    def __init__(self) -> None:
        super().__init__("Plans are not sold here; ask whoever runs this installation.")


class StripeUnavailable(Unavailable):
    """Stripe cannot be reached, or would not do what it was asked."""

    code = "billing_unavailable"
    title = "Billing unavailable"

    def __init__(self, detail: str = "Stripe cannot be reached just now; try again.") -> None:
        super().__init__(detail, retry_after=10)


class PriceMissing(StripeUnavailable):
    """The operator's to mend: the plan has a lookup key, Stripe no price for it."""

    code = "price_not_set_up"
    title = "Price not set up"

    def __init__(self, plan: str, lookup_key: str) -> None:
        super().__init__(
            f"The plan {plan} cannot be bought: Stripe has no active recurring price with the"
            f" lookup key {lookup_key}. Whoever runs this installation has to make it."
        )


class CheckoutOpen(Conflict):
    """One Checkout at a time: paying twice must not be possible. `url` leads to the open one."""

    code = "checkout_open"
    title = "Checkout already open"

    def __init__(self, url: str | None = None) -> None:
        super().__init__(
            "A Checkout of this account is open: finish it, or wait until it has expired.",
            extra={"url": url} if url else None,
        )


class SubscriptionLive(Conflict):
    """There is a subscription, which the portal changes or ends."""

    code = "subscription_live"
    title = "Subscription already there"

    def __init__(self) -> None:
        super().__init__(
            "The account has a subscription: POST /api/v1/billing/portal leads to where it is"
            " changed, paid or cancelled."
        )


class NothingToManage(Conflict):
    """Nothing was ever bought."""

    code = "no_subscription"
    title = "Nothing to manage"

    def __init__(self) -> None:
        super().__init__("Nothing was bought yet: POST /api/v1/billing/checkout comes first.")


class BadSignature(Problem):
    """A webhook that Stripe did not sign, or signed too long ago."""

    status = 400
    code = "bad_signature"
    title = "Signature refused"

    def __init__(self) -> None:
        super().__init__("The Stripe-Signature is missing, wrong or too old.")


class NeedsOperator(NotRetried):
    """Something at Stripe that a person must look at; the account's plan stays meanwhile."""
