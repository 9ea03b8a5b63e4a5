"""What deleting an account means, in words: the same in the API, on pages and in the mail."""

from datetime import timedelta

UNDO = timedelta(days=7)  # product contract §7

AT_ONCE = (
    "Every session ends, and every API key is gone.",
    "Devices are disconnected, and what they send is refused with the code account_closing.",
    "The SQL login is dropped, live streams are closed, and alerts and webhooks are silent.",
    "A subscription is set to end; nothing more is charged for it.",
    "Mail stops, but for what concerns this deletion and the safety of the account.",
)
LATER = (
    "Every reading, device, rule, notice and counter of the account is erased, with its files.",
    "The customer at Stripe is deleted; Stripe keeps invoices as long as tax law has them kept.",
    "A receipt is mailed: what was erased, how many rows and when. It is the last mail.",
)
UNTIL_THEN = (
    "Sign in with your password, or use the link in the mail, to undo it.",
    "Signed in you can still export all your data.",
)
COMES_BACK = (
    "Devices may connect again with the secrets they have.",
    "Alert rules, webhooks, notices and mail work as before; silence is counted from now on.",
    "A subscription that was set to end because of the deletion goes on.",
)
STAYS_GONE = (
    "Sessions and API keys stay revoked: sign in again, and make new keys.",
    "The SQL login stays dropped: make a new one for Grafana.",
    "What devices sent meanwhile was refused and is not stored.",
)
